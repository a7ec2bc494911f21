"""Valid, small orders and events for tests, which change the fields that they name."""

from datetime import UTC, datetime
from typing import Any

from uuid_utils.compat import uuid7

from events import contracts
from events.contracts import (
    Address,
    Customer,
    Declined,
    Dispatched,
    InvoiceCreated,
    Invoiced,
    InvoiceDetails,
    Item,
    Order,
    OrderCreated,
    OrderDelayed,
    Paid,
    PaymentConfirmed,
    PaymentDetails,
    PaymentFailed,
    PaymentRefunded,
    Placed,
    Reason,
    RefundDetails,
    Refunded,
    ShipmentDetails,
    ShipmentError,
    Shipped,
    Undeliverable,
)
from events.delays import WaitReason, order_delayed
from events.journey import Stage

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def an_item(**changes: Any) -> Item:
    """Two mugs at 19.90 with 17 % tax."""
    fields: dict[str, Any] = {
        "sku": "MUG-01",
        "name": "Mug",
        "quantity": 2,
        "unit_price": 1990,
        "tax_rate": "0.17",
        "subtotal": 3980,
        "tax": 677,
        "total": 4657,
    }
    return Item(**fields | changes)


def an_order(**changes: Any) -> Order:
    """An order over 46.57 BRL; totals follow from its items."""
    items: tuple[Item, ...] = changes.get("items", (an_item(),))
    fields: dict[str, Any] = {
        "id": uuid7(),
        "created_at": NOON,
        "reference": "WEB-1042",
        "customer": Customer(name="Ana Souza", email="ana@example.com", locale="pt-BR"),
        "shipping_address": Address(
            line1="Rua Augusta 1", city="São Paulo", postal_code="01304-001", country="BR"
        ),
        "currency": "BRL",
        "items": items,
        "subtotal": sum(item.subtotal for item in items),
        "tax": sum(item.tax for item in items),
        "total": sum(item.total for item in items),
        "payment_method": "pm_card_visa",
    }
    return Order(**fields | changes)


def an_invoice(**changes: Any) -> InvoiceDetails:
    """The year's first."""
    fields: dict[str, Any] = {"number": "2026-000001", "issued_at": NOON}
    return InvoiceDetails(**fields | changes)


def a_payment(order: Order, **changes: Any) -> PaymentDetails:
    """The order's total, captured by the simulated provider."""
    fields: dict[str, Any] = {
        "id": str(order.id),
        "provider": "simulated",
        "provider_reference": "ch_1",
        "amount": order.total,
        "captured_at": NOON,
    }
    return PaymentDetails(**fields | changes)


def a_shipment(**changes: Any) -> ShipmentDetails:
    """A parcel with a right check digit."""
    fields: dict[str, Any] = {
        "id": str(uuid7()),
        "carrier": "Simulated Post",
        "tracking_number": "RR473124829BR",
        "booked_at": NOON,
    }
    return ShipmentDetails(**fields | changes)


def a_delay(order: Order, stage: Stage, why: WaitReason = "outage") -> OrderDelayed:
    """The order waits in this stage, since noon."""
    return order_delayed(stage, order, why, NOON)


def order_created(order: Order | None = None) -> OrderCreated:
    """The order was accepted."""
    return OrderCreated.of(Placed(order=order or an_order()))


def one_of_each(order: Order | None = None) -> dict[str, contracts.AnyMilestone]:
    """One milestone of each type about one order, by type; no real order sees them all."""
    order = order or an_order()
    invoice = an_invoice()
    payment = a_payment(order)
    declined = Reason(code="card_declined", message="The card was declined.", stage="payment")
    unserved = Reason(code="destination_not_served", message="We do not ship there.", stage="shipment")
    refund = RefundDetails(id=str(uuid7()), provider_reference="re_1", amount=order.total, refunded_at=NOON)
    undeliverable = Undeliverable(order=order, invoice=invoice, payment=payment, reason=unserved)
    events: list[contracts.AnyMilestone] = [
        OrderCreated.of(Placed(order=order)),
        InvoiceCreated.of(Invoiced(order=order, invoice=invoice)),
        PaymentFailed.of(Declined(order=order, invoice=invoice, reason=declined)),
        PaymentConfirmed.of(Paid(order=order, invoice=invoice, payment=payment)),
        ShipmentError.of(undeliverable),
        Shipped.of(Dispatched(order=order, invoice=invoice, payment=payment, shipment=a_shipment())),
        PaymentRefunded.of(
            Refunded(order=order, invoice=invoice, payment=payment, reason=unserved, refund=refund)
        ),
    ]
    return {contracts.type_of(type(event)): event for event in events}
