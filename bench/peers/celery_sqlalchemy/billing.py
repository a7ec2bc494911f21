"""The billing service: takes the payment from the simulated provider."""

from functools import partial
from typing import Final

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from uuid_utils.compat import uuid7

from bench.peers import business, models
from bench.peers.business import InvoiceCreated, Paid, PaymentConfirmed
from bench.peers.celery_sqlalchemy.app import app, publish, work
from bench.peers.celery_sqlalchemy.database import sessions


@app.task(name="billing.take_payment", pydantic=True)
def take_payment(event: InvoiceCreated) -> None:
    """Charges the order's total."""
    order = event.data.order
    payment = business.Payment(provider_reference=charge(f"order-{order.id}", order), amount=order.total)
    with sessions.begin() as session:
        session.add(
            models.Payment(
                id=payment.id,
                order_id=order.id,
                provider_reference=payment.provider_reference,
                amount=payment.amount,
                currency=order.currency,
                captured_at=payment.captured_at,
            )
        )
    paid = Paid(order=order, invoice=event.data.invoice, payment=payment)
    publish(PaymentConfirmed(subject=order.id, data=paid))


def charge(key: str, order: business.Order) -> str:
    """Charges once per key in the simulated provider's ledger, and returns the charge's reference."""
    with sessions.begin() as ledger:
        charged = ledger.scalar(
            insert(models.Charge)
            .values(
                id=uuid7(),
                key=key,
                order_id=order.id,
                amount=order.total,
                currency=order.currency,
                payment_method=order.payment_method,
                status="captured",
            )
            .on_conflict_do_nothing(index_elements=["key"])
            .returning(models.Charge.id)
        )
        charged = charged or ledger.scalar(select(models.Charge.id).where(models.Charge.key == key))
    return f"ch_{charged}"


run: Final = partial(work, "billing")
