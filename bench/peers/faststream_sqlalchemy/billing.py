"""The billing service: takes the payment from the simulated provider."""

from typing import Annotated

from faststream import Depends
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from bench.peers import business, models
from bench.peers.business import InvoiceCreated, Paid, PaymentConfirmed
from bench.peers.faststream_sqlalchemy.database import get_session, sessions
from bench.peers.faststream_sqlalchemy.messaging import EXCHANGES, QUEUES
from bench.peers.faststream_sqlalchemy.worker import broker, run

__all__ = ["run"]


@broker.subscriber(QUEUES["billing"])
@broker.publisher(exchange=EXCHANGES["PAYMENT_CONFIRMED"], persist=True)
async def take_payment(
    event: InvoiceCreated, session: Annotated[AsyncSession, Depends(get_session)]
) -> PaymentConfirmed:
    """Charges the order's total."""
    order = event.data.order
    payment = business.Payment(
        provider_reference=await charge(f"order-{order.id}", order), amount=order.total
    )
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
    await session.commit()
    return PaymentConfirmed(
        subject=order.id, data=Paid(order=order, invoice=event.data.invoice, payment=payment)
    )


async def charge(key: str, order: business.Order) -> str:
    """Charges once per key in the simulated provider's ledger, and returns the charge's reference."""
    async with sessions.begin() as ledger:
        charged = await ledger.scalar(
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
        charged = charged or await ledger.scalar(select(models.Charge.id).where(models.Charge.key == key))
    return f"ch_{charged}"
