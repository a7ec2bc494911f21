"""`orderflow refunds record`."""

from datetime import UTC, datetime
from uuid import UUID

import typer

from events import interventions
from events.errors import Unavailable
from events.interventions import Subject
from events.money import format_amount
from ops.actor import resolve_actor
from ops.errors import CommandFailed
from ops.owner_database import connect_as_owner
from ops.target import Target
from services.billing import repository


class NothingToRecord(CommandFailed):
    """The order has no dead refund."""


async def record(target: Target, order_id: UUID, *, reference: str, note: str, actor_name: str) -> int:
    """Settles the order's dead refund as made by hand, and announces it. Raises CommandFailed."""
    actor = resolve_actor(actor_name)
    try:
        async with (
            connect_as_owner(target.database_url, "refunds") as owned,
            owned.as_service("billing") as tx,
        ):
            refund = await repository.dead_refund(tx, order_id)
            if refund is None:
                raise NothingToRecord(_why_not(order_id, await repository.refund_states(tx, order_id)))
            refund = refund.recorded_by_hand(reference=reference, at=datetime.now(UTC))
            await repository.record_refund(tx, refund)
            tx.emit(refund.announcement())
            subject = Subject(refund.id, repository.REFUNDS.name, order_id, "failed", refund.failure)
            await interventions.record(tx, "record", [subject], actor=actor, note=note)
    except Unavailable as error:
        raise CommandFailed(str(error)) from error
    was = refund.undeliverable
    amount = format_amount(was.payment.amount, was.order.currency)
    typer.echo(f"{amount} {was.order.currency} of order {order_id} is recorded as refunded: {reference}.")
    return 0


def _why_not(order_id: UUID, states: list[str]) -> str:
    if "refunded" in states:
        return f"The payment of order {order_id} is on record as refunded already."
    if "pending" in states:
        return (
            f"Billing still tries the refund of order {order_id}: the payment provider may refund the money "
            "a second time."
        )
    return f"Order {order_id} has no refund."
