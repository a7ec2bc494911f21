"""The command `python -m sandbox.demo`."""

from pathlib import Path
from typing import Annotated

import typer

from ops.carrying_out import carry_out
from sandbox.demo.command import demo


def main(
    orders: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="A folder with other orders, and an expected.toml that says where each ends.",
        ),
    ] = None,
) -> None:
    """Watch realistic orders go through the whole system.

    Starts it on a fresh folder and a free port, places the orders of examples/ and shows each on its way.
    Payments are simulated and mails are files, whatever PAYMENT_PROVIDER and SMTP_URL say.

    Exits 0 only if every order ended where it should, and every mail was written.
    """
    carry_out(lambda: demo(orders))


if __name__ == "__main__":
    typer.run(main)
