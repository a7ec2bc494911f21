"""Unknown charges: money that the provider has taken in our name, and that our records do not know of."""

import logging
from collections.abc import Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from events.errors import Unavailable, UnknownOutcome
from events.money import format_amount
from events.transactions import Transactions
from services.billing import recovered
from services.billing.provider import MadeCharge, Records

EVERY_SECONDS: Final = 60.0
NEWEST: Final = 1000
"""How many charges the first run looks at: an older database that was brought back lacks the newest."""
OVERLAP: Final = timedelta(seconds=30)
"""How much of what the run before has listed is listed again: a list may lag behind."""
CHUNK: Final = 1000
"""Most charges that are looked for in one transaction."""

logger = logging.getLogger(__name__)


class UnknownCharges:
    """Compares the provider's list of charges with the payments, and logs an error about those unknown.

    The first run looks at the newest charges, every later one at those made since the run before. A charge
    is unknown when billing has no payment for it, or one that another charge has settled: after an older
    database was brought back, or when another system uses the same account. It changes nothing, and a
    process tells of a charge once.
    """

    name: Final = "unknown charges"

    def __init__(self, records: Records, *, every: float = EVERY_SECONDS, newest: int = NEWEST) -> None:
        """`every` is in seconds; `newest` bounds the first run."""
        self.every = every
        self._records = records
        self._newest = newest
        self._seen_until: datetime | None = None
        self._told: set[str] = set()

    async def run(self, transactions: Transactions) -> None:
        """Compares once. Raises Unavailable when the provider or the database does not answer."""
        try:
            listed = await self._list()
        except UnknownOutcome as error:
            raise Unavailable(str(error)) from error
        found: list[MadeCharge] = []
        chunks = iter(listed)
        while chunk := list(islice(chunks, CHUNK)):
            async with transactions() as tx:
                unknown = await recovered.unknown(tx, chunk)
            found += [charge for charge in chunk if charge.reference in unknown - self._told]
        if listed:
            self._seen_until = max(charge.at for charge in listed)
        if found:
            self._told |= {charge.reference for charge in found}
            _tell(found)

    async def _list(self) -> list[MadeCharge]:
        since = self._seen_until - OVERLAP if self._seen_until else None
        listed: list[MadeCharge] = []
        async with aclosing(self._records.charges(since)) as charges:
            async for charge in charges:
                listed.append(charge)
                if since is None and len(listed) == self._newest:
                    break
        return listed


def _tell(found: Sequence[MadeCharge]) -> None:
    example = found[0]
    logger.error(
        "the payment provider has %d charges that billing does not know, such as %s over %s %s for order %s: "
        "if an older database was brought back, stop the services and run 'orderflow restore'",
        len(found),
        example.reference,
        format_amount(example.amount, example.currency),
        example.currency,
        example.order_id,
    )
