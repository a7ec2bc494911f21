"""The command `python -m sandbox.stripe`."""

from pathlib import Path
from typing import Annotated

import typer

from ops.execute import execute
from sandbox.stripe.faults import Timing
from sandbox.stripe.process import serve


def main(
    *,
    host: Annotated[
        str, typer.Option(envvar="HOST", metavar="ADDRESS", help="The address to listen on.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="PORT", metavar="PORT", min=0, max=65535, help="0 takes any free port.")
    ] = 12111,
    ledger: Annotated[
        Path,
        typer.Option(envvar="LEDGER", metavar="FILE", help="The SQLite file that holds charges and refunds."),
    ] = Path("var/stripe/ledger.sqlite"),
    api_key: Annotated[
        str,
        typer.Option(
            envvar="STRIPE_API_KEY",
            metavar="KEY",
            show_default=False,
            help="The only API key to accept. Without it any is accepted.",
        ),
    ] = "",
    scripted: Annotated[
        bool,
        typer.Option("--scripted", envvar="SCRIPTED", help="Serve /_control, where tests plan faults."),
    ] = False,
    search_seconds: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="How long a change takes to show in search.")
    ] = 60.0,
    key_hours: Annotated[
        float, typer.Option(metavar="HOURS", min=0, help="How long to remember idempotency keys.")
    ] = 24.0,
) -> None:
    """Serve the part of Stripe's API that Orderflow uses, without moving money.

    Covers PaymentIntents, refunds, test payment methods and idempotency keys. The ledger survives a restart.

    Billing uses this server when PAYMENT_PROVIDER=stripe and STRIPE_BASE_URL is its address.
    """
    timing = Timing(key_seconds=key_hours * 3600, search_seconds=search_seconds)
    execute(lambda: serve(host, port, ledger, api_key=api_key or None, scripted=scripted, timing=timing))


if __name__ == "__main__":
    typer.run(main)
