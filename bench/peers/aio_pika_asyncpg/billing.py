"""The billing service: takes the payment from the simulated provider."""

from functools import partial
from typing import Final

from asyncpg import Pool
from uuid_utils.compat import uuid7

from bench.peers import business
from bench.peers.aio_pika_asyncpg import service
from bench.peers.aio_pika_asyncpg.service import Service
from bench.peers.business import InvoiceCreated, Paid, PaymentConfirmed


async def take_payment(event: InvoiceCreated, service: Service) -> None:
    """Charges the order's total before the transaction, with an idempotency key, so it may be repeated."""
    order = event.data.order
    reference = await charge(f"order-{order.id}", order, service.pool)
    payment = business.Payment(provider_reference=reference, amount=order.total)
    async with service.once(event) as tx:
        await tx.connection.execute(
            "INSERT INTO payments (id, order_id, provider_reference, amount, currency, captured_at)"
            " VALUES ($1, $2, $3, $4, $5, $6)",
            payment.id,
            order.id,
            payment.provider_reference,
            payment.amount,
            order.currency,
            payment.captured_at,
        )
        paid = Paid(order=order, invoice=event.data.invoice, payment=payment)
        await tx.announce(PaymentConfirmed(subject=order.id, data=paid))


async def charge(key: str, order: business.Order, ledger: Pool) -> str:
    """Charges once per key in the simulated provider's ledger, and returns the charge's reference."""
    charged = await ledger.fetchval(
        "INSERT INTO charges (id, key, order_id, amount, currency, payment_method, status)"
        " VALUES ($1, $2, $3, $4, $5, $6, 'captured') ON CONFLICT (key) DO NOTHING RETURNING id",
        uuid7(),
        key,
        order.id,
        order.total,
        order.currency,
        order.payment_method,
    )
    charged = charged or await ledger.fetchval("SELECT id FROM charges WHERE key = $1", key)
    return f"ch_{charged}"


run: Final = partial(service.run, "billing", take_payment)
