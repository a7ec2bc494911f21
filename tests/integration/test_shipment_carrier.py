"""The simulated carrier keeps a book of its own: one booking per key, a number of its own for each."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import msgspec
import pytest

from chassis import database
from events.transactions import Transactions
from services.shipment.carrier import DestinationUnserved, SimulatedCarrier
from tests.factories import an_order

HOME = an_order().shipping_address


@pytest.fixture
async def transactions(service_url: Callable[[str], Awaitable[str]]) -> AsyncIterator[Transactions]:
    async with database.connect(await service_url("shipment"), pool=8, application="test") as pool:
        yield Transactions(pool)


async def test_the_same_key_gets_the_same_booking(transactions: Transactions) -> None:
    carrier = SimulatedCarrier(transactions, "BR")
    first = await carrier.book("order-1", HOME)
    other = await carrier.book("order-2", HOME)
    assert await carrier.book("order-1", HOME) == first
    assert (first.tracking_number, other.tracking_number) == ("RR000000005BR", "RR000000014BR")


async def test_a_booking_stays_as_it_is_when_the_carrier_is_set_up_differently(
    transactions: Transactions,
) -> None:
    first = await SimulatedCarrier(transactions, "BR").book("order-1", HOME)
    elsewhere = SimulatedCarrier(transactions, "PT")
    assert await elsewhere.book("order-1", HOME) == first
    assert (await elsewhere.book("order-2", HOME)).tracking_number.endswith("PT")


async def test_many_who_book_at_once_each_get_the_booking_of_their_key(transactions: Transactions) -> None:
    carriers = [SimulatedCarrier(transactions, "BR") for _ in range(3)]
    keys = [f"order-{n % 100}" for n in range(600)]
    bookings = await asyncio.gather(
        *(carriers[n % 3].book(key, HOME) for n, key in enumerate(keys)),
    )
    by_key = {key: booking.tracking_number for key, booking in zip(keys, bookings, strict=True)}
    assert all(by_key[key] == booking.tracking_number for key, booking in zip(keys, bookings, strict=True))
    assert len(set(by_key.values())) == 100


@pytest.mark.parametrize("country", ["AQ", "BV", "HM", "TF"])
async def test_where_nobody_lives_nothing_is_booked(transactions: Transactions, country: str) -> None:
    carrier = SimulatedCarrier(transactions, "BR")
    with pytest.raises(DestinationUnserved):
        await carrier.book("order-1", msgspec.structs.replace(HOME, country=country))
    async with transactions() as tx:
        assert await tx.fetch("SELECT FROM carrier_bookings") == []


async def test_when_all_numbers_are_used_up_none_is_used_twice(transactions: Transactions) -> None:
    carrier = SimulatedCarrier(transactions, "BR")
    async with transactions() as tx:
        await tx.execute("ALTER TABLE carrier_bookings ALTER COLUMN serial RESTART WITH 2499999999")
    assert (await carrier.book("order-1", HOME)).tracking_number == "RQ999999995BR"
    with pytest.raises(asyncpg.SequenceGeneratorLimitExceededError):
        await carrier.book("order-2", HOME)
