"""The command `orderflow stripe`."""

from pathlib import Path
from typing import Annotated

import typer

from ops.execute import execute


def stripe(
    *,
    host: Annotated[
        str, typer.Option(envvar="HOST", metavar="ADDRESS", help="Where it listens.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="PORT", metavar="PORT", min=0, max=65535, help="0 takes any.")
    ] = 12111,
    ledger: Annotated[
        Path,
        typer.Option(envvar="LEDGER", metavar="FILE", help="What it has charged and given back, for good."),
    ] = Path("var/stripe/ledger.sqlite"),
    api_key: Annotated[
        str,
        typer.Option(
            envvar="STRIPE_API_KEY",
            metavar="KEY",
            show_default=False,
            help="The only key that it lets in; without it any is.",
        ),
    ] = "",
    scripted: Annotated[
        bool,
        typer.Option("--scripted", envvar="SCRIPTED", help="Misbehave as told under /_personality."),
    ] = False,
    search_seconds: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="How far its search lags behind.")
    ] = 60.0,
    key_hours: Annotated[
        float, typer.Option(metavar="HOURS", min=0, help="How long it remembers idempotency keys.")
    ] = 24.0,
) -> None:
    """Answer as Stripe does: a payment provider to try things with, and to be beaten up.

    PaymentIntents and refunds, test payment methods, idempotency keys; its ledger outlives it.

    Billing uses it with PAYMENT_PROVIDER=stripe and STRIPE_BASE_URL. It moves no money.
    """
    from ops.stripe.personality import Pace  # noqa: PLC0415
    from ops.stripe.process import serve  # noqa: PLC0415

    pace = Pace(key_seconds=key_hours * 3600, search_seconds=search_seconds)
    execute(lambda: serve(host, port, ledger, api_key=api_key or None, scripted=scripted, pace=pace))
