"""The simulated carrier keeps bookings of its own: one per key, each with a tracking number of its own."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import asyncpg
import msgspec
import pytest

from chassis import database
from events.transactions import Transactions
from services.shipment.carrier import Booked, Label, Refused
from services.shipment.simulated import SimulatedCarrier
from tests.factories import an_order

HOME = Label("Ana Souza", an_order().shipping_address)


@pytest.fixture
async def transactions(service_url: Callable[[str], Awaitable[str]]) -> AsyncIterator[Transactions]:
    async with database.connect(await service_url("carrier"), pool=8, application="test") as pool:
        yield Transactions(pool)


async def book(carrier: SimulatedCarrier, key: str) -> Booked:
    answer = await carrier.book(key, HOME)
    assert isinstance(answer, Booked)
    return answer


async def test_the_same_key_gets_the_same_booking(transactions: Transactions) -> None:
    carrier = SimulatedCarrier(transactions, "BR")
    first = await book(carrier, "order-1")
    other = await book(carrier, "order-2")
    assert await book(carrier, "order-1") == first
    assert (first.tracking_number, other.tracking_number) == ("RR000000005BR", "RR000000014BR")


async def test_a_booking_stays_as_it_is_when_the_carrier_is_set_up_differently(
    transactions: Transactions,
) -> None:
    first = await book(SimulatedCarrier(transactions, "BR"), "order-1")
    elsewhere = SimulatedCarrier(transactions, "PT")
    assert await book(elsewhere, "order-1") == first
    assert (await book(elsewhere, "order-2")).tracking_number.endswith("PT")


async def test_concurrent_bookings_get_one_tracking_number_per_key(transactions: Transactions) -> None:
    carriers = [SimulatedCarrier(transactions, "BR") for _ in range(3)]
    keys = [f"order-{n % 100}" for n in range(600)]
    bookings = await asyncio.gather(*(book(carriers[n % 3], key) for n, key in enumerate(keys)))
    by_key = {key: booking.tracking_number for key, booking in zip(keys, bookings, strict=True)}
    assert all(by_key[key] == booking.tracking_number for key, booking in zip(keys, bookings, strict=True))
    assert len(set(by_key.values())) == 100


@pytest.mark.parametrize("country", ["AQ", "BV", "HM", "TF"])
async def test_a_country_without_inhabitants_is_refused_and_nothing_is_booked(
    transactions: Transactions, country: str
) -> None:
    carrier = SimulatedCarrier(transactions, "BR")
    away = replace(HOME, address=msgspec.structs.replace(HOME.address, country=country))
    answer = await carrier.book("order-1", away)
    assert answer == Refused("destination_unserved", "The carrier does not deliver to this country.")
    async with transactions() as tx:
        assert await tx.fetch("SELECT FROM bookings") == []


async def test_when_all_numbers_are_used_up_none_is_used_twice(transactions: Transactions) -> None:
    carrier = SimulatedCarrier(transactions, "BR")
    async with transactions() as tx:
        await tx.execute("ALTER TABLE bookings ALTER COLUMN serial RESTART WITH 2499999999")
    assert (await book(carrier, "order-1")).tracking_number == "RQ999999995BR"
    with pytest.raises(asyncpg.SequenceGeneratorLimitExceededError):
        await book(carrier, "order-2")
