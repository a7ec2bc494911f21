"""From PAYMENT_CONFIRMED to SHIPPED or SHIPMENT_ERROR, once, under every failure."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from uuid import UUID

import msgspec
import pytest
from uuid_utils.compat import uuid7

from chassis import database
from chassis.service import open_service
from events.bus import Message, Subscription
from events.contracts import AnyEvent, Dispatched, Paid, PaymentConfirmed, ShipmentError, Shipped
from events.envelope import decode, encode_one, messages
from events.memory import MemoryBus
from events.participant import Participant
from events.runner import Runner
from events.transaction import Transaction
from events.transactions import Transactions
from services.shipment import repository
from services.shipment.carrier import BookingAnswer, Label, Refused
from services.shipment.domain import Shipment
from services.shipment.handlers import HANDLERS
from services.shipment.main import SERVICE
from services.shipment.settings import ShipmentSettings
from services.shipment.simulated import SimulatedCarrier, connect
from services.shipment.work import BOOKING_RETRIES, Booking
from tests import version_1
from tests.factories import a_payment, an_invoice, an_order
from tests.waiting import patient_bus

Settle = Callable[[Transaction, Sequence[tuple[Shipment, Shipment]]], Awaitable[None]]


def paid(country: str = "BR") -> PaymentConfirmed:
    order = an_order()
    order = msgspec.structs.replace(
        order, shipping_address=msgspec.structs.replace(order.shipping_address, country=country)
    )
    return PaymentConfirmed.of(Paid(order=order, invoice=an_invoice(), payment=a_payment(order)))


class Journey:
    """The shipment service's surroundings: two databases, a bus, and a listener to its events."""

    def __init__(self, url: str, carrier_url: str, bus: MemoryBus, probe: Subscription) -> None:
        self.url = url
        self.carrier_url = carrier_url
        self.bus = bus
        self._probe = probe

    @asynccontextmanager
    async def service(self, settle: Settle | None = None) -> AsyncIterator[Transactions]:
        """The service runs until the block ends, and then dies without draining."""
        async with (
            database.connect(self.url, pool=4, application="test") as pool,
            database.connect(self.carrier_url, pool=4, application="test") as bookings,
        ):
            transactions = Transactions(pool)
            booking = Booking(SimulatedCarrier(Transactions(bookings), "BR"))
            runner = Runner(
                "bookings",
                repository.PENDING_SHIPMENTS,
                transactions,
                booking.perform,
                settle or booking.settle,
                policy=BOOKING_RETRIES,
                sweep_seconds=0.1,
            )
            participant = Participant(
                "shipment", HANDLERS, transactions, self.bus, {Shipment: runner}, sweep_seconds=0.1
            )
            running = asyncio.create_task(participant.run())
            try:
                yield transactions
            finally:
                running.cancel()
                with suppress(asyncio.CancelledError):
                    await running

    async def publish(self, *events: AnyEvent) -> None:
        """Publishes the events, and returns when the service has committed them."""
        async with asyncio.timeout(30):
            await asyncio.gather(*(self.bus.publish(message) for message in messages(events)))

    async def heard(self, count: int) -> list[AnyEvent]:
        """The next events that the service announces, at least `count`."""
        events: list[AnyEvent] = []
        async with asyncio.timeout(30):
            while len(events) < count:
                deliveries = await self._probe.take(100)
                for delivery in deliveries:
                    events += decode(delivery.body)[0]
                await self._probe.acknowledge(deliveries)
        return events


@pytest.fixture
async def journey(service_url: Callable[[str], Awaitable[str]]) -> AsyncIterator[Journey]:
    bus = patient_bus({"shipment": ["PAYMENT_CONFIRMED"], "probe": ["SHIPPED", "SHIPMENT_ERROR"]})
    async with bus.subscribe("probe", ["SHIPPED", "SHIPMENT_ERROR"]) as probe:
        yield Journey(await service_url("shipment"), await service_url("carrier"), bus, probe)


async def stored(transactions: Transactions) -> list[tuple[object, ...]]:
    async with transactions() as tx:
        records = await tx.fetch("SELECT order_id, state, tracking_number, reason_code FROM shipments")
    return [tuple(record) for record in records]


async def test_a_paid_order_is_shipped(journey: Journey) -> None:
    payment = paid()
    async with journey.service() as transactions:
        await journey.publish(payment)
        [shipped] = await journey.heard(1)
        assert isinstance(shipped, Shipped)
        assert (shipped.data.order, shipped.data.payment) == (payment.data.order, payment.data.payment)
        assert shipped.data.shipment.carrier == "Simulated Post"
        assert shipped.data.shipment.tracking_number == "RR000000005BR"
        assert await stored(transactions) == [(payment.subject, "shipped", "RR000000005BR", None)]


async def test_the_assembled_service_ships_from_its_country_of_origin(journey: Journey) -> None:
    settings = ShipmentSettings(
        database_url=journey.url, carrier_database_url=journey.carrier_url, origin_country="PT"
    )
    async with open_service(SERVICE, settings, journey.bus) as running:
        service = asyncio.create_task(running.participant.run())
        await journey.publish(paid())
        [shipped] = await journey.heard(1)
        async with asyncio.timeout(30):
            running.participant.stop()
            await service
    assert isinstance(shipped, Shipped)
    assert shipped.data.shipment.tracking_number == "RR000000005PT"


async def test_a_destination_that_is_not_served_is_a_shipment_error(journey: Journey) -> None:
    payment = paid(country="AQ")
    async with journey.service() as transactions:
        await journey.publish(payment)
        [error] = await journey.heard(1)
        assert isinstance(error, ShipmentError)
        assert error.data.reason.code == "destination_unserved"
        assert error.data.reason.message == "The carrier does not deliver to this country."
        assert error.data.reason.stage == "shipment"
        assert error.data.payment == payment.data.payment
        assert await stored(transactions) == [(payment.subject, "refused", None, "destination_unserved")]


async def test_an_order_is_shipped_once_however_often_its_payment_is_announced(journey: Journey) -> None:
    payments = [paid() for _ in range(40)]
    told_again = [PaymentConfirmed.of(payment.data) for payment in payments]
    async with AsyncExitStack() as stack:
        transactions, _ = [await stack.enter_async_context(journey.service()) for _ in range(2)]
        await journey.publish(*payments, payments[0], *told_again[:20])
        await journey.publish(*told_again, *payments)
        shipped = await journey.heard(40)
        await journey.publish(paid())
        [last] = await journey.heard(1)
        assert len(shipped) == len({event.subject for event in shipped}) == 40
        assert last.subject not in {payment.subject for payment in payments}
        rows = await stored(transactions)
        assert len(rows) == len({tracking_number for _, _, tracking_number, _ in rows}) == 41


async def test_a_shipment_that_version_1_began_is_shipped_and_the_payment_method_stays_here(
    journey: Journey,
) -> None:
    async with journey.service() as transactions:
        async with transactions() as tx:
            await tx.execute(
                "INSERT INTO shipments (id, order_id, paid, state, claimed_until) "
                "VALUES ($1, $2, $3, 'pending', now())",
                *(uuid7(), version_1.ORDER_ID, version_1.PAID),
            )
        [shipped] = await journey.heard(1)
    assert isinstance(shipped, Shipped)
    assert shipped.subject == version_1.ORDER_ID
    assert version_1.PAYMENT_METHOD.encode() not in encode_one(shipped)


async def test_what_is_kept_of_a_payment_of_version_1_has_no_payment_method(journey: Journey) -> None:
    body = version_1.event("PAYMENT_CONFIRMED", "/services/billing", version_1.PAID)
    async with journey.service() as transactions:
        async with asyncio.timeout(30):
            await journey.bus.publish(Message(uuid7(), "PAYMENT_CONFIRMED", body, (), ()))
        async with transactions() as tx:
            [row] = await tx.fetch("SELECT paid FROM shipments")
    assert b"Ana Souza" in row["paid"]
    assert version_1.PAYMENT_METHOD.encode() not in row["paid"]


class Labels:
    """A carrier that refuses every parcel, and keeps the labels."""

    name = "Labels"

    def __init__(self) -> None:
        self.labels: list[Label] = []

    async def book(self, key: str, label: Label) -> BookingAnswer:
        self.labels.append(label)
        return Refused("destination_unserved", key)


@pytest.mark.parametrize(
    ("customer", "address", "label"),
    [
        ({}, {}, ("Ana Souza", None, None)),
        ({"company": "Souza Ltda", "phone": "+55 11 5555"}, {}, ("Ana Souza", "Souza Ltda", "+55 11 5555")),
        ({"company": "Souza Ltda"}, {"company": "Depot"}, ("Ana Souza", "Depot", None)),
        ({"company": "Souza Ltda", "phone": "5"}, {"name": "Rui Dias"}, ("Rui Dias", None, "5")),
        ({}, {"name": "Rui Dias", "company": "Dias SA"}, ("Rui Dias", "Dias SA", None)),
    ],
)
async def test_the_label_names_the_recipient(
    customer: dict[str, str], address: dict[str, str], label: tuple[str, str | None, str | None]
) -> None:
    order = an_order()
    order = msgspec.structs.replace(
        order,
        customer=msgspec.structs.replace(order.customer, **customer),
        shipping_address=msgspec.structs.replace(order.shipping_address, **address),
    )
    carrier = Labels()
    shipment = Shipment(uuid7(), Paid(order=order, invoice=an_invoice(), payment=a_payment(order)))
    await Booking(carrier).perform(shipment)
    [booked] = carrier.labels
    assert (booked.name, booked.company, booked.phone) == label
    assert booked.address == order.shipping_address


async def test_a_crash_between_the_carriers_answer_and_its_commit_keeps_the_tracking_number(
    journey: Journey,
) -> None:
    answered: asyncio.Future[Shipment] = asyncio.get_running_loop().create_future()

    async def never_commits(_: Transaction, performed: Sequence[tuple[Shipment, Shipment]]) -> None:
        answered.set_result(performed[0][1])
        await asyncio.Event().wait()

    async with journey.service(never_commits):
        await journey.publish(paid())
        async with asyncio.timeout(30):
            before = (await answered).outcome
    assert isinstance(before, Dispatched)

    async with journey.service() as transactions:
        async with transactions() as tx:
            await tx.execute("UPDATE shipments SET claimed_until = now()")
        [shipped] = await journey.heard(1)
        assert isinstance(shipped, Shipped)
        assert shipped.data.shipment.tracking_number == before.shipment.tracking_number
        assert shipped.data.shipment.booked_at == before.shipment.booked_at
    async with database.connect(journey.carrier_url, pool=1, application="test") as pool:
        assert await pool.fetchval("SELECT count(*) FROM bookings") == 1


async def test_an_answer_that_another_process_stored_first_is_not_announced_again(
    journey: Journey,
) -> None:
    async with journey.service() as transactions:
        payment = paid()
        await journey.publish(payment)
        [shipped] = await journey.heard(1)
        assert isinstance(shipped, Shipped)
        shipment = Shipment(UUID(shipped.data.shipment.id), payment.data)
        late = shipment.refused(code="destination_unserved", message="")
        async with connect(journey.carrier_url, "BR") as carrier, transactions() as tx:
            await Booking(carrier).settle(tx, [(shipment, late)])
            assert tx.events == []
        assert [state for _, state, _, _ in await stored(transactions)] == ["shipped"]
