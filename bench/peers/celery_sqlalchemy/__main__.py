"""`python -m bench.peers.celery_sqlalchemy setup`, or one of the services."""

import importlib
import logging
import sys

from bench.peers.celery_sqlalchemy import setup


def main(command: str) -> None:
    """Runs the setup, or a service until SIGTERM."""
    logging.basicConfig(level=logging.WARNING)
    if command == "setup":
        setup.setup()
    else:
        importlib.import_module(f"bench.peers.celery_sqlalchemy.{command}").run()


if __name__ == "__main__":
    main(sys.argv[1])
