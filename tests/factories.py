"""Valid, small orders and events for tests, which change the fields that they name."""

from datetime import UTC, date, datetime
from typing import Any

from msgspec.structs import replace
from uuid_utils.compat import uuid7

from events import contracts
from events.contracts import (
    NO_PROVIDER,
    Address,
    Customer,
    Declined,
    Discount,
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
    Seller,
    ShipmentDetails,
    ShipmentError,
    Shipped,
    Shipping,
    Undeliverable,
)
from events.delays import WaitReason, order_delayed
from events.journey import Stage

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
CARD = "pm_card_visa"
"""The payment method of a card that is charged."""


def an_item(**changes: Any) -> Item:
    """Two mugs at 19.90 with 17 % tax. The tax category follows from the rate."""
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
    item = Item(**fields | changes)
    return replace(item, tax_category=item.category)


def an_order(**changes: Any) -> Order:
    """An order over 46.57 BRL. Totals follow from its items, and the items' ids are their places."""
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
        "subtotal": sum(item.subtotal for item in items),
        "tax": sum(item.tax for item in items),
        "total": sum(item.total for item in items),
    }
    named = tuple(item if item.id else replace(item, id=str(n)) for n, item in enumerate(items, start=1))
    return Order(**fields | changes | {"items": named})


def a_rich_order(**changes: Any) -> Order:
    """An order over 63.15 EUR with everything that an order can say, except reverse charge.

    Prices are gross. The mugs are discounted by 10 %, and 5.00 is given on the order: 2.83, 0.95 and 1.22 of
    it on the lines. The cable's price has four decimals and its quantity one.
    """
    standard: dict[str, Any] = {"tax_rate": "0.19", "tax_category": "S"}
    mugs = Item(
        **standard,
        id="mugs",
        sku="MUG-01",
        name="Mug",
        quantity=2,
        unit_price=1990,
        discount=Discount(amount=398, rate="0.1", name="Two for less"),
        order_discount=283,
        subtotal=2772,
        tax=527,
        total=3299,
    )
    book = Item(
        id="book",
        sku="BOOK-07",
        name="Book",
        quantity=1,
        unit_price=1200,
        tax_rate="0.07",
        tax_category="S",
        order_discount=95,
        subtotal=1033,
        tax=72,
        total=1105,
    )
    cable = Item(
        **standard,
        id="cable",
        sku="CABLE-M",
        name="Cable, per metre",
        quantity=125,
        quantity_decimals=1,
        unit_price=12345,
        unit_price_decimals=4,
        order_discount=122,
        subtotal=1194,
        tax=227,
        total=1421,
    )
    fields: dict[str, Any] = {
        "id": uuid7(),
        "created_at": NOON,
        "reference": "B2B-77",
        "customer": Customer(
            name="Jo Weber",
            email="jo@example.com",
            locale="de-DE",
            company="Weber GmbH",
            phone="+49 30 1234567",
            tax_id="DE136695976",
        ),
        "shipping_address": Address(
            name="Kim Weber", line1="Lindenallee 5", city="Leipzig", postal_code="04109", country="DE"
        ),
        "billing_address": Address(
            company="Weber GmbH",
            line1="Hauptstraße 1",
            line2="2. OG",
            city="Berlin",
            postal_code="10827",
            country="DE",
        ),
        "currency": "EUR",
        "prices": "gross",
        "items": (mugs, book, cable),
        "discount": Discount(amount=500, name="SUMMER5"),
        "shipping": Shipping(**standard, name="Parcel", price=490, subtotal=412, tax=78, total=490),
        "subtotal": 5411,
        "tax": 904,
        "total": 6315,
        "note": "Please ring twice.",
        "metadata": {"channel": "web", "campaign": "summer-26"},
    }
    return Order(**fields | changes)


def a_free_order(**changes: Any) -> Order:
    """An order whose total is 0."""
    item = an_item(unit_price=0, tax_rate="0", subtotal=0, tax=0, total=0)
    return an_order(**{"items": (item,)} | changes)


def a_seller(**changes: Any) -> Seller:
    """A shop in Berlin."""
    fields: dict[str, Any] = {
        "name": "Example Shop",
        "address": Address(line1="Ladenstraße 3", city="Berlin", postal_code="10117", country="DE"),
        "email": "shop@example.com",
        "tax_id": "DE129273398",
        "registration": "HRB 12345, Berlin",
        "time_zone": "Europe/Berlin",
    }
    return Seller(**fields | changes)


def an_invoice(**changes: Any) -> InvoiceDetails:
    """The year's first."""
    fields: dict[str, Any] = {
        "number": "2026-000001",
        "issued_at": NOON,
        "issued_on": date(2026, 11, 22),
        "seller": a_seller(),
    }
    return InvoiceDetails(**fields | changes)


def a_payment(order: Order, **changes: Any) -> PaymentDetails:
    """The order's total, captured by the simulated provider; by none if it is 0."""
    fields: dict[str, Any] = {
        "id": str(order.id),
        "provider": "simulated" if order.total else NO_PROVIDER,
        "provider_reference": "ch_1" if order.total else NO_PROVIDER,
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


def a_placed(order: Order | None = None, payment_method: str | None = CARD) -> Placed:
    """The data of ORDER_CREATED."""
    return Placed(order=order or an_order(), payment_method=payment_method)


def an_invoiced(order: Order | None = None, payment_method: str | None = CARD) -> Invoiced:
    """The data of INVOICE_CREATED."""
    return Invoiced(order=order or an_order(), invoice=an_invoice(), payment_method=payment_method)


def order_created(order: Order | None = None, payment_method: str | None = CARD) -> OrderCreated:
    """The order was accepted."""
    return OrderCreated.of(a_placed(order, payment_method))


def invoice_created(order: Order | None = None, payment_method: str | None = CARD) -> InvoiceCreated:
    """The invoice was issued."""
    return InvoiceCreated.of(an_invoiced(order, payment_method))


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
        order_created(order),
        invoice_created(order),
        PaymentFailed.of(Declined(order=order, invoice=invoice, reason=declined)),
        PaymentConfirmed.of(Paid(order=order, invoice=invoice, payment=payment)),
        ShipmentError.of(undeliverable),
        Shipped.of(Dispatched(order=order, invoice=invoice, payment=payment, shipment=a_shipment())),
        PaymentRefunded.of(
            Refunded(order=order, invoice=invoice, payment=payment, reason=unserved, refund=refund)
        ),
    ]
    return {contracts.type_of(type(event)): event for event in events}
