"""The simulated carrier: a third party that keeps durable bookings of its own.

It takes every parcel, except to the countries in UNSERVED. Its bookings are in the schema `carrier`, which
belongs to its own role; it commits them by itself, before it answers. Concurrent calls share a commit.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from sqlalchemy import BigInteger, Column, Identity, MetaData, Table, Text, func
from sqlalchemy.dialects.postgresql import TIMESTAMP

from chassis import database, revisions
from events import statements
from events.group_commit import GroupCommit
from events.transactions import Transactions
from services.shipment import s10
from services.shipment.carrier import Booked, BookingAnswer, Label, Refused

METADATA: Final = MetaData()
HISTORY: Final = "services.shipment:carrier_migrations"

BOOKINGS: Final = Table(
    "bookings",
    METADATA,
    Column("key", Text, primary_key=True),
    Column("serial", BigInteger, Identity(always=True, minvalue=0, start=0, maxvalue=s10.CAPACITY - 1)),
    Column("origin", Text, nullable=False, comment="the country of the tracking number"),
    Column("booked_at", TIMESTAMP(timezone=True), nullable=False, server_default=func.now()),
)

UNSERVED: Final = frozenset({"AQ", "BV", "HM", "TF"})
"""Countries (ISO 3166-1) without permanent inhabitants, where the simulated carrier does not deliver.

Antarctica, Bouvet Island, Heard and McDonald Islands, French Southern Territories. To try a refusal, use AQ.
"""

_BOOK: Final = statements.insert(
    BOOKINGS,
    ("key", "origin"),
    then="ON CONFLICT (key) DO UPDATE SET key = excluded.key RETURNING key, serial, origin, booked_at",
)


class SimulatedCarrier:
    """Keeps the promises of `carrier.Carrier` with bookings of its own."""

    name = "Simulated Post"

    def __init__(self, bookings: Transactions, origin: str) -> None:
        """`origin` is the country (ISO 3166-1 alpha-2) at the end of new tracking numbers."""
        self._bookings = bookings
        self._origin = origin
        self._commits: GroupCommit[str, Booked] = GroupCommit(self._commit)

    async def book(self, key: str, label: Label) -> BookingAnswer:
        """See Carrier. Only the country matters here; nobody's name is stored."""
        if label.address.country in UNSERVED:
            return Refused("destination_unserved", "The carrier does not deliver to this country.")
        return await self._commits.submit(key)

    async def drain(self) -> None:
        """Returns when nothing is being committed any more."""
        await self._commits.drain()

    async def _commit(self, keys: Sequence[str]) -> list[Booked]:
        rows = [(key, self._origin) for key in sorted(set(keys))]
        records = await self._bookings.fetch(_BOOK, *statements.columns_of(rows, 2))
        booked = {
            record["key"]: Booked(s10.identifier(record["serial"], record["origin"]), record["booked_at"])
            for record in records
        }
        return [booked[key] for key in keys]


@asynccontextmanager
async def connect(database_url: str, origin: str) -> AsyncIterator[SimulatedCarrier]:
    """The carrier on its bookings, once `orderflow migrate` has made their table."""
    async with database.connect(database_url, pool=4, application="carrier") as pool:
        await database.wait_for_schema(pool, revisions.head(HISTORY))
        carrier = SimulatedCarrier(Transactions(pool), origin)
        try:
            yield carrier
        finally:
            await carrier.drain()
