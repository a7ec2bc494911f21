"""The events of the samples of version 2: one of each type, about one order. No real order sees them all.

The order is placed half an hour before New Year in UTC. For the seller, in Berlin, it is New Year already.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Final
from uuid import UUID

from msgspec.structs import replace

from events import contracts, life
from events.contracts import AboutOrder, Cause, Event, Reason, type_of
from events.delays import order_delayed
from events.journey import PAYMENT
from tests.factories import a_rich_order, a_seller

_PLACED_AT: Final = datetime(2026, 12, 31, 23, 30, tzinfo=UTC)


def _at(minutes: int) -> datetime:
    """So many minutes after the order was placed."""
    return _PLACED_AT + timedelta(minutes=minutes)


def _id(number: int) -> UUID:
    """A UUIDv7 that is the same each time."""
    millisecond = int(_PLACED_AT.timestamp() * 1000) + number
    return UUID(int=millisecond << 80 | 0x7 << 76 | 0x2 << 62 | number)


_ORDER: Final = a_rich_order(id=_id(1), created_at=_at(0))
_CARD: Final = "pm_card_visa"
_SELLER: Final = a_seller()
_INVOICE: Final = contracts.InvoiceDetails(
    number="2027-000001", issued_at=_at(1), issued_on=date(2027, 1, 1), seller=_SELLER
)
_PAYMENT: Final = contracts.PaymentDetails(
    id=str(_id(2)),
    provider="simulated",
    provider_reference="ch_7f3a",
    amount=_ORDER.total,
    captured_at=_at(3),
    attempt=2,
)
_DECLINED: Final = Reason(code="card_declined", message="The card was declined.", stage="payment")
_UNSERVED: Final = Reason(
    code="destination_not_served", message="The carrier does not deliver there.", stage="shipment"
)
_ONE_MUG: Final = contracts.RefundedLine(id="mugs", quantity=1, subtotal=1386, tax=264, total=1650)
_REFUND_REQUEST: Final = life.RefundRequest(
    id=_id(3),
    reason="damaged",
    note="One mug arrived broken.",
    lines=(life.RequestedLine(id="mugs", quantity=1),),
    requested_at=_at(20),
)
_REFUND: Final = contracts.RefundDetails(
    id=str(_id(4)),
    provider_reference="re_11aa",
    amount=_ONE_MUG.total,
    refunded_at=_at(21),
    cause="request",
    request_id=_REFUND_REQUEST.id,
    lines=(_ONE_MUG,),
)
_CANCELLATION: Final = life.Cancellation(
    id=_id(5), reason="customer_changed_mind", note="Ordered twice.", requested_at=_at(4)
)


def _milestones() -> Iterator[Event[AboutOrder]]:
    order, invoice, payment = _ORDER, _INVOICE, _PAYMENT
    shipment = contracts.ShipmentDetails(
        id=str(_id(6)), carrier="Simulated Post", tracking_number="RR473124829BR", booked_at=_at(5)
    )
    yield contracts.OrderCreated.of(contracts.Placed(order=order, payment_method=_CARD))
    yield contracts.InvoiceCreated.of(contracts.Invoiced(order=order, invoice=invoice, payment_method=_CARD))
    yield contracts.PaymentFailed.of(
        contracts.Declined(order=order, invoice=invoice, reason=_DECLINED, payable_until=_at(7 * 24 * 60))
    )
    yield contracts.PaymentConfirmed.of(contracts.Paid(order=order, invoice=invoice, payment=payment))
    yield contracts.ShipmentError.of(
        contracts.Undeliverable(order=order, invoice=invoice, payment=payment, reason=_UNSERVED)
    )
    yield contracts.Shipped.of(
        contracts.Dispatched(order=order, invoice=invoice, payment=payment, shipment=shipment)
    )
    yield contracts.PaymentRefunded.of(
        contracts.Refunded(order=order, invoice=invoice, payment=payment, refund=_REFUND)
    )
    yield order_delayed(PAYMENT, order, "outage", _at(2))


def _events_of_life() -> Iterator[Event[AboutOrder]]:
    order, invoice, payment = _ORDER, _INVOICE, _PAYMENT
    request = life.PaymentRequest(attempt=2, payment_method="pm_card_mastercard", requested_at=_at(3))
    yield life.PaymentRequested.of(life.PaymentAsked(order=order, request=request))
    action = life.PaymentAction(
        payment_id=payment.id, attempt=1, kind="authentication", expires_at=_at(60 * 23)
    )
    yield life.PaymentActionRequired.of(life.ActionRequired(order=order, invoice=invoice, action=action))
    expiry = life.PaymentExpiry(attempts=2, expired_at=_at(7 * 24 * 60))
    yield life.PaymentExpired.of(life.Expired(order=order, invoice=invoice, expiry=expiry))
    yield life.CancellationRequested.of(life.CancellationAsked(order=order, cancellation=_CANCELLATION))
    yield life.OrderCancelled.of(life.Cancelled(order=order, cancellation=_CANCELLATION, cancelled_at=_at(4)))
    shipped = Cause(code="shipped", message="The parcel is on its way already.")
    yield life.CancellationRefused.of(
        life.NotCancelled(order=order, cancellation=_CANCELLATION, reason=shipped)
    )
    yield life.RefundRequested.of(life.RefundAsked(order=order, request=_REFUND_REQUEST))
    too_much = Cause(code="exceeds_rest", message="Less than that is left of the payment.")
    yield life.RefundRefused.of(life.NotRefunded(order=order, request=_REFUND_REQUEST, reason=too_much))
    closed = Cause(code="expired_or_canceled_card", message="The card can't take the money back.")
    failed = life.FailedRefund(
        id=_REFUND.id,
        request_id=_REFUND_REQUEST.id,
        cause=_REFUND.cause,
        provider_reference=_REFUND.provider_reference,
        amount=_REFUND.amount,
        failed_at=_at(22),
    )
    yield life.RefundFailed.of(
        life.RefundNotMade(order=order, invoice=invoice, payment=payment, refund=failed, reason=closed)
    )
    note = life.CreditNoteDetails(
        number="CN-2027-000001",
        issued_at=_at(23),
        issued_on=date(2027, 1, 1),
        seller=_SELLER,
        refund_id=_REFUND.id,
        lines=(_ONE_MUG,),
        subtotal=_ONE_MUG.subtotal,
        tax=_ONE_MUG.tax,
        total=_ONE_MUG.total,
    )
    yield life.CreditNoteIssued.of(life.Credited(order=order, invoice=invoice, credit_note=note))
    dispute = life.Dispute(
        id="dp_5c2e",
        payment_id=payment.id,
        amount=payment.amount,
        code="product_not_received",
        state="open",
        changed_at=_at(9 * 24 * 60),
    )
    yield life.PaymentDisputed.of(life.Disputed(order=order, invoice=invoice, dispute=dispute))
    withdrawal = life.Withdrawal(id=_id(7), note="I changed my mind.", declared_at=_at(3 * 24 * 60))
    yield life.WithdrawalDeclared.of(life.Withdrawn(order=order, withdrawal=withdrawal))


EVENTS: Final = {
    type_of(type(event)): replace(event, id=_id(100 + number), time=_at(number))
    for number, event in enumerate((*_milestones(), *_events_of_life()))
}
"""The events by type."""
