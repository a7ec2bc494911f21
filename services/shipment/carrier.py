"""The carrier: who takes parcels, and gives them their tracking numbers."""

from collections.abc import Sequence
from typing import Final

from events import statements
from events.contracts import Address
from events.group_commit import GroupCommit
from events.transactions import Transactions
from services.shipment import s10
from services.shipment.domain import Booking
from services.shipment.repository import CARRIER_BOOKINGS

UNSERVED: Final = frozenset({"AQ", "BV", "HM", "TF"})
"""Countries (ISO 3166-1) where the simulated carrier does not deliver: nobody lives there for good.

Antarctica, Bouvet Island, Heard and McDonald Islands, French Southern Territories. To try a refusal, use AQ.
"""

_BOOK: Final = statements.insert(
    CARRIER_BOOKINGS,
    ("key", "origin"),
    then="ON CONFLICT (key) DO UPDATE SET key = excluded.key RETURNING key, serial, origin, booked_at",
)


class DestinationUnserved(Exception):
    """The carrier does not deliver to this country."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


class SimulatedCarrier:
    """A carrier that takes every parcel, to wherever people live.

    It keeps a book of its own, as a third party would: in transactions of its own, whatever becomes of those
    of its caller. Concurrent bookings share one.
    """

    name: Final = "Simulated Post"

    def __init__(self, transactions: Transactions, origin: str) -> None:
        self._transactions = transactions
        self._origin = origin
        self._bookings: GroupCommit[str, Booking] = GroupCommit(self._commit)

    async def book(self, key: str, address: Address) -> Booking:
        """Books a parcel. A key that was used before gets the same booking again, and books nothing new.

        Raises DestinationUnserved when it will never deliver there, Unavailable when it does not answer.
        """
        if address.country in UNSERVED:
            raise DestinationUnserved
        return await self._bookings.submit(key)

    async def drain(self) -> None:
        """Returns when every booking that was begun is in the book, also those nobody waits for."""
        await self._bookings.drain()

    async def _commit(self, keys: Sequence[str]) -> list[Booking]:
        rows = [(key, self._origin) for key in sorted(set(keys))]
        records = await self._transactions.fetch(_BOOK, *statements.columns_of(rows, 2))
        bookings = {
            record["key"]: Booking(
                carrier=self.name,
                tracking_number=s10.identifier(record["serial"], record["origin"]),
                booked_at=record["booked_at"],
            )
            for record in records
        }
        return [bookings[key] for key in keys]
