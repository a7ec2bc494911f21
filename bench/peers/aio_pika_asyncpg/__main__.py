"""`python -m bench.peers.aio_pika_asyncpg setup`, or one of the services."""

import importlib
import logging
import sys

import uvloop

from bench.peers.aio_pika_asyncpg import setup


def main(command: str) -> None:
    """Runs the setup, or a service until SIGTERM."""
    logging.basicConfig(level=logging.WARNING)
    if command == "setup":
        uvloop.run(setup.setup())
    else:
        importlib.import_module(f"bench.peers.aio_pika_asyncpg.{command}").run()


if __name__ == "__main__":
    main(sys.argv[1])
