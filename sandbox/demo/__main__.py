"""The command `python -m sandbox.demo`."""

from pathlib import Path
from typing import Annotated

import typer

from ops.execute import execute
from sandbox.demo import examples
from sandbox.demo.command import demo


def main(
    orders: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            show_default="examples/",
            help="A folder with other orders, and an expected.toml with the final status of each.",
        ),
    ] = examples.FOLDER,
) -> None:
    """Watch realistic orders go through the whole system.

    Starts the system with a new state folder and a free port, places the orders of examples/ and shows each
    on its way. Payments are simulated and mails are files; PAYMENT_PROVIDER and SMTP_URL do not count here.

    Exits 0 if every order ended as expected and every mail was written.
    """
    execute(lambda: demo(orders))


if __name__ == "__main__":
    typer.run(main)
