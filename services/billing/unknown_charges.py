"""The search for unknown charges: those that the provider made for us and billing has no payment for."""

import logging
from collections.abc import Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from events.errors import Unavailable, UnknownOutcome
from events.money import format_amount
from events.transactions import Transactions
from services.billing import recovered_charges
from services.billing.provider import ListedCharge, ProviderLists

EVERY_SECONDS: Final = 60.0
NEWEST: Final = 1000
"""How many charges the first run compares: a restored database lacks the newest."""
OVERLAP: Final = timedelta(seconds=30)
"""How far each run overlaps the one before: the provider's list may lag."""
CHUNK: Final = 1000
"""Most charges that are compared in one transaction."""

logger = logging.getLogger(__name__)


class UnknownCharges:
    """Compares the provider's charges with billing's payments, and logs an error about unknown ones.

    The first run compares the newest charges, every later run those since the run before. A charge is unknown
    when billing has no payment for it, or when another charge has settled its payment. That happens after an
    older database is restored, or when another system uses the same account. The search changes nothing, and
    a process reports each charge once.
    """

    name: Final = "unknown charges"

    def __init__(self, lists: ProviderLists, *, every: float = EVERY_SECONDS, newest: int = NEWEST) -> None:
        """`every` is in seconds; `newest` limits the first run."""
        self.every = every
        self._lists = lists
        self._newest = newest
        self._compared_until: datetime | None = None
        self._reported: set[str] = set()

    async def run(self, transactions: Transactions) -> None:
        """Compares once. Raises Unavailable when the provider or the database does not answer."""
        try:
            listed = await self._list()
        except UnknownOutcome as error:
            raise Unavailable(str(error)) from error
        found: list[ListedCharge] = []
        chunks = iter(listed)
        while chunk := list(islice(chunks, CHUNK)):
            async with transactions() as tx:
                unknown = await recovered_charges.find_unknown(tx, chunk)
            found += [charge for charge in chunk if charge.reference in unknown - self._reported]
        if listed:
            self._compared_until = max(charge.at for charge in listed)
        if found:
            self._reported |= {charge.reference for charge in found}
            _report(found)

    async def _list(self) -> list[ListedCharge]:
        since = self._compared_until - OVERLAP if self._compared_until else None
        listed: list[ListedCharge] = []
        async with aclosing(self._lists.list_charges(since)) as charges:
            async for charge in charges:
                listed.append(charge)
                if since is None and len(listed) == self._newest:
                    break
        return listed


def _report(found: Sequence[ListedCharge]) -> None:
    example = found[0]
    logger.error(
        "the payment provider has %d charges that billing does not know, such as %s of %s %s for order %s: "
        "if an older database was restored, stop the services and run 'orderflow restore'",
        len(found),
        example.reference,
        format_amount(example.amount, example.currency),
        example.currency,
        example.order_id,
    )
