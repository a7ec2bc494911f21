"""The payment provider's ledger: its own record of charges and refunds, read from either provider."""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeVar
from uuid import UUID

import asyncpg
import httpx

from chassis.settings import read
from events.connection import DRIVER_ERRORS
from ops.errors import CommandFailed
from services.billing.settings import ProviderSettings
from services.billing.stripe.amounts import iso_amount

STRIPE: Final = "https://api.stripe.com"
PAGE: Final = 100
"""Most objects in one page of Stripe's."""
CHUNK: Final = 5_000
"""Most rows in one page of the simulated provider's ledger."""


class LedgerUnavailable(CommandFailed):
    """The payment provider's ledger can't be read."""


@dataclass(frozen=True, slots=True)
class LedgerCharge:
    """A charge in the ledger. Its amount is in the currency's minor units (ISO 4217)."""

    id: str
    payment_id: UUID
    order_id: UUID
    amount: int
    currency: str
    succeeded: bool
    created_at: datetime
    order_reference: str | None = None
    """The caller's own number of the order."""
    key_hash: str | None = None
    """SHA-256 of the `Idempotency-Key` that made the order, in hexadecimal."""


@dataclass(frozen=True, slots=True)
class LedgerRefund:
    """A refund in the ledger. Its amount is in the currency's minor units (ISO 4217)."""

    id: str
    refund_id: UUID
    charge_id: str
    amount: int
    created_at: datetime


class Ledger(Protocol):
    """Reads a payment provider's ledger page by page, so memory use does not grow with its length.

    The pages have every record that existed when the first page was requested; later ones may be missing.
    """

    @property
    def provider(self) -> str:
        """The provider's name, as in `billing.payments`."""
        ...

    def charges(self, since: datetime | None = None) -> AsyncGenerator[Sequence[LedgerCharge], None]:
        """Every charge made since then, failed ones too. Raises LedgerUnavailable."""
        ...

    def refunds(self, since: datetime | None = None) -> AsyncGenerator[Sequence[LedgerRefund], None]:
        """Every refund made since then. Raises LedgerUnavailable."""
        ...


_R = TypeVar("_R", LedgerCharge, LedgerRefund)

_CHARGES: Final = """
    SELECT id, payment_id, order_id, amount, currency, status = 'succeeded' AS succeeded, created_at,
        order_reference, key_hash
    FROM provider.charges"""
_REFUNDS: Final = """
    SELECT id, refund_id, charge_id, amount, created_at
    FROM (SELECT * FROM provider.refunds WHERE status <> 'failed') made"""
_NEXT: Final = """
    {records} WHERE id > $1 AND ($2::timestamptz IS NULL OR created_at >= $2) ORDER BY id LIMIT $3"""


class SimulatedLedger:
    """The simulated provider's ledger, in its own schema."""

    provider = "simulated"

    def __init__(self, database_url: str) -> None:
        self._dsn = database_url.replace("+asyncpg", "", 1)

    def charges(self, since: datetime | None = None) -> AsyncGenerator[Sequence[LedgerCharge], None]:
        """See Ledger."""
        return self._pages(_CHARGES, LedgerCharge, since)

    def refunds(self, since: datetime | None = None) -> AsyncGenerator[Sequence[LedgerRefund], None]:
        """See Ledger."""
        return self._pages(_REFUNDS, LedgerRefund, since)

    async def _pages(
        self, records: str, kind: type[_R], since: datetime | None
    ) -> AsyncGenerator[Sequence[_R], None]:
        """Pages by id, each by a statement of its own, so no snapshot stays open between them."""
        statement, after = _NEXT.format(records=records), ""
        try:
            connection = await asyncpg.connect(self._dsn, timeout=5)
            try:
                while rows := await connection.fetch(statement, after, since, CHUNK):
                    yield [kind(**row) for row in rows]
                    after = rows[-1]["id"]
            finally:
                await connection.close()
        except DRIVER_ERRORS as error:
            raise LedgerUnavailable(f"{LedgerUnavailable.__doc__} ({error})") from error


class StripeLedger:
    """Stripe's ledger: its lists of payment intents and of refunds. A server with Stripe's API will do.

    https://docs.stripe.com/api/pagination
    """

    provider = "stripe"

    def __init__(self, api_key: str, base_url: str | None) -> None:
        self._base_url = base_url or STRIPE
        self._headers = {"Authorization": f"Bearer {api_key}"}

    def charges(self, since: datetime | None = None) -> AsyncGenerator[Sequence[LedgerCharge], None]:
        """See Ledger. An intent that has not succeeded is a failed charge."""
        return self._pages("/v1/payment_intents", _charge, since)

    def refunds(self, since: datetime | None = None) -> AsyncGenerator[Sequence[LedgerRefund], None]:
        """See Ledger."""
        return self._pages("/v1/refunds", _refund, since)

    async def _pages(
        self, path: str, read: Callable[[dict[str, Any]], _R | None], since: datetime | None
    ) -> AsyncGenerator[Sequence[_R], None]:
        """Pages newest first, so records made meanwhile do not shift a page."""
        asked = {"limit": str(PAGE)} | ({"created[gte]": str(int(since.timestamp()))} if since else {})
        after: dict[str, str] = {}
        try:
            async with httpx.AsyncClient(
                base_url=self._base_url, headers=self._headers, timeout=30, trust_env=self._base_url == STRIPE
            ) as client:
                while True:
                    answer = await client.get(path, params={**asked, **after})
                    page = answer.raise_for_status().json()
                    yield [record for found in page["data"] if (record := read(found))]
                    if not page["has_more"]:
                        return
                    after = {"starting_after": page["data"][-1]["id"]}
        except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
            raise LedgerUnavailable(f"{LedgerUnavailable.__doc__} ({error!r})") from error


def _charge(intent: dict[str, Any]) -> LedgerCharge | None:
    """The charge; None for an intent that is not ours."""
    if not {"payment_id", "order_id"} <= intent["metadata"].keys():
        return None
    return LedgerCharge(
        id=intent["id"],
        payment_id=UUID(intent["metadata"]["payment_id"]),
        order_id=UUID(intent["metadata"]["order_id"]),
        amount=iso_amount(intent["amount_received"] or intent["amount"], intent["currency"].upper()),
        currency=intent["currency"].upper(),
        succeeded=intent["status"] == "succeeded",
        created_at=datetime.fromtimestamp(intent["created"], UTC),
        order_reference=intent["metadata"].get("reference"),
        key_hash=intent["metadata"].get("key_hash"),
    )


def _refund(refund: dict[str, Any]) -> LedgerRefund | None:
    """The refund; None for one that is not ours, or that failed."""
    if "refund_id" not in refund["metadata"] or refund["status"] in ("failed", "canceled"):
        return None
    return LedgerRefund(
        id=refund["id"],
        refund_id=UUID(refund["metadata"]["refund_id"]),
        charge_id=refund["payment_intent"],
        amount=iso_amount(refund["amount"], refund["currency"].upper()),
        created_at=datetime.fromtimestamp(refund["created"], UTC),
    )


def ledger_of(database_url: str) -> Ledger:
    """The ledger of the provider that PAYMENT_PROVIDER names; the simulated one's is in the database.

    Raises UnusableSettings.
    """
    settings = read(ProviderSettings)
    if settings.payment_provider == "stripe":
        assert settings.stripe_api_key
        return StripeLedger(settings.stripe_api_key.get_secret_value(), settings.stripe_base_url)
    return SimulatedLedger(database_url)
