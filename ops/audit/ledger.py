"""The payment provider's own record of what it charged and gave back, whoever the provider is."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol
from uuid import UUID

import asyncpg
import httpx

from chassis.settings import read
from ops.errors import CommandFailed
from services.billing.settings import ProviderSettings
from services.billing.stripe_amounts import iso_amount

STRIPE: Final = "https://api.stripe.com"
PAGE: Final = 100
"""Most objects in one of Stripe's pages."""


class LedgerUnavailable(CommandFailed):
    """The payment provider does not tell what it charged."""


@dataclass(frozen=True, slots=True)
class LedgerCharge:
    """A charge, as the provider tells it. Amounts are in the currency's own minor units (ISO 4217)."""

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
    """A refund, as the provider tells it."""

    id: str
    refund_id: UUID
    charge_id: str
    amount: int
    created_at: datetime


class Ledger(Protocol):
    """What a payment provider can be asked about the past."""

    @property
    def provider(self) -> str:
        """Its name, as payments have it."""
        ...

    async def charges(self) -> Sequence[LedgerCharge]:
        """Every charge, also those that failed. Raises LedgerUnavailable."""
        ...

    async def refunds(self) -> Sequence[LedgerRefund]:
        """Every refund that was made. Raises LedgerUnavailable."""
        ...


class SimulatedLedger:
    """The simulated provider's, in its own schema."""

    provider = "simulated"

    def __init__(self, database_url: str) -> None:
        self._dsn = database_url.replace("+asyncpg", "", 1)

    async def charges(self) -> Sequence[LedgerCharge]:
        """See Ledger."""
        rows = await self._fetch(
            "SELECT id, payment_id, order_id, amount, currency, status = 'succeeded' AS succeeded, "
            "created_at, order_reference, key_hash FROM provider.charges"
        )
        return [LedgerCharge(**row) for row in rows]

    async def refunds(self) -> Sequence[LedgerRefund]:
        """See Ledger."""
        rows = await self._fetch(
            "SELECT id, refund_id, charge_id, amount, created_at FROM provider.refunds "
            "WHERE status <> 'failed'"
        )
        return [LedgerRefund(**row) for row in rows]

    async def _fetch(self, query: str) -> "list[asyncpg.Record]":
        try:
            connection = await asyncpg.connect(self._dsn, timeout=5)
            try:
                return list(await connection.fetch(query))
            finally:
                await connection.close()
        except (OSError, TimeoutError, asyncpg.PostgresError) as error:
            raise LedgerUnavailable(f"{LedgerUnavailable.__doc__} ({error})") from error


class StripeLedger:
    """Stripe's, or that of whoever answers as Stripe does: its lists of payment intents and of refunds.

    https://docs.stripe.com/api/pagination
    """

    provider = "stripe"

    def __init__(self, api_key: str, base_url: str | None) -> None:
        self._base_url = base_url or STRIPE
        self._headers = {"Authorization": f"Bearer {api_key}"}

    async def charges(self) -> Sequence[LedgerCharge]:
        """See Ledger. An intent that has not succeeded counts as a charge that failed."""
        return [
            LedgerCharge(
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
            async for intent in self._list("/v1/payment_intents")
            if {"payment_id", "order_id"} <= intent["metadata"].keys()
        ]

    async def refunds(self) -> Sequence[LedgerRefund]:
        """See Ledger."""
        return [
            LedgerRefund(
                id=refund["id"],
                refund_id=UUID(refund["metadata"]["refund_id"]),
                charge_id=refund["payment_intent"],
                amount=iso_amount(refund["amount"], refund["currency"].upper()),
                created_at=datetime.fromtimestamp(refund["created"], UTC),
            )
            async for refund in self._list("/v1/refunds")
            if "refund_id" in refund["metadata"] and refund["status"] not in ("failed", "canceled")
        ]

    async def _list(self, path: str) -> AsyncIterator[dict[str, Any]]:
        after: dict[str, str] = {}
        try:
            async with httpx.AsyncClient(
                base_url=self._base_url, headers=self._headers, timeout=30, trust_env=self._base_url == STRIPE
            ) as client:
                while True:
                    answer = await client.get(path, params={"limit": str(PAGE), **after})
                    page = answer.raise_for_status().json()
                    for found in page["data"]:
                        yield found
                    if not page["has_more"]:
                        return
                    after = {"starting_after": page["data"][-1]["id"]}
        except httpx.HTTPError as error:
            raise LedgerUnavailable(f"{LedgerUnavailable.__doc__} ({error})") from error


def ledger_of(database_url: str) -> Ledger:
    """The ledger of the provider that billing's environment names; the simulated one's is in the database.

    Raises UnusableSettings.
    """
    settings = read(ProviderSettings)
    if settings.payment_provider == "stripe":
        assert settings.stripe_api_key
        return StripeLedger(settings.stripe_api_key.get_secret_value(), settings.stripe_base_url)
    return SimulatedLedger(database_url)
