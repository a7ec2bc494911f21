"""`orderflow refunds record`."""

from datetime import UTC, datetime
from uuid import UUID

import typer

from events import interventions
from events.errors import Unavailable
from events.interventions import Subject
from events.money import format_amount
from ops.actor import actor
from ops.errors import CommandFailed
from ops.schemas import schemas
from ops.target import Target
from services.billing import repository


class NothingToRecord(CommandFailed):
    """The order has no refund that waits for an operator."""


async def record(target: Target, order_id: UUID, *, reference: str, note: str, named: str) -> int:
    """Settles the order's dead refund as given back by hand, and announces it. Raises CommandFailed.

    `named` is who does it, as `actor` takes it.
    """
    who = actor(named)
    try:
        async with schemas(target.database_url, "refunds") as owned, owned.of("billing") as tx:
            refund = await repository.dead_refund(tx, order_id)
            if refund is None:
                raise NothingToRecord(_why_not(order_id, await repository.refund_states(tx, order_id)))
            refund = refund.recorded_by_hand(reference=reference, at=datetime.now(UTC))
            await repository.record_refund(tx, refund)
            tx.emit(refund.announcement())
            subject = Subject(refund.id, repository.REFUNDS.name, order_id, "failed", refund.failure)
            await interventions.record(tx, "record", [subject], actor=who, note=note)
    except Unavailable as error:
        raise CommandFailed(str(error)) from error
    was = refund.undeliverable
    amount = format_amount(was.payment.amount, was.order.currency)
    typer.echo(f"{amount} {was.order.currency} of order {order_id} is recorded as given back: {reference}.")
    return 0


def _why_not(order_id: UUID, states: list[str]) -> str:
    if "refunded" in states:
        return f"The payment of order {order_id} is on record as given back already."
    if "pending" in states:
        return (
            f"The refund of order {order_id} is still tried: the payment provider may give the money back, "
            "a second time."
        )
    return f"The order {order_id} has no refund."
