"""The calls to Stripe that billing makes, one method each."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any, Final, TypeVar

import stripe

from events.errors import UnknownOutcome
from services.billing.provider import ChargeRequest, RefundRequest
from services.billing.stripe.client import answer_within
from services.billing.stripe.errors import RefusedByStripe, SavedError
from services.billing.stripe.intents import new_intent
from services.billing.stripe.objects import Intent, ListedIntent, Page, Refund

MAX_SAVED_ERRORS: Final = 8
"""Most keys for confirming an intent that may end in a saved error before the payment is put off."""
NEW_INTENT_SECONDS: Final = 3500
"""An intent younger than this was created after the last use of any key that is looked up."""
SEARCHABLE_SECONDS: Final = 300
"""An intent older than this should be found by search, which promises a minute."""

T = TypeVar("T")
ListedT = TypeVar("ListedT", Intent, Refund)


class StripeCalls:
    """Every method raises RefusedByStripe, SavedError, Unavailable, Postponed or UnknownOutcome."""

    def __init__(self, client: stripe.StripeClient, answer_seconds: float) -> None:
        self._intents = client.v1.payment_intents
        self._refunds = client.v1.refunds
        self._answer_seconds = answer_seconds

    async def create_intent(self, request: ChargeRequest, amount: int) -> tuple[Intent, bool]:
        """Returns the intent of this key as it was created, and whether an earlier request created it.

        Raises KeyInOtherUse also where another version has used the key with other parameters.
        """
        call = self._intents.create_async(new_intent(request, amount), {"idempotency_key": request.key})
        return await answer_within(self._answer_seconds, call, Intent)

    async def retrieve_intent(self, intent_id: str) -> Intent:
        """Returns the intent as it is now."""
        call = self._intents.retrieve_async(intent_id, {"expand": ["latest_charge"]})
        return await self._ask(call, Intent)

    async def confirm_intent(self, intent_id: str, key: str) -> Intent:
        """Pays the intent, under the first key of a fixed series that has no saved error.

        Using several keys is safe because an intent succeeds at most once.
        """
        for number in range(1, MAX_SAVED_ERRORS + 1):
            call = self._intents.confirm_async(
                intent_id,
                {"off_session": True, "error_on_requires_action": True, "expand": ["latest_charge"]},
                {"idempotency_key": f"{key}-confirm-{number}"},
            )
            try:
                return await self._ask(call, Intent)
            except SavedError:
                continue
        raise UnknownOutcome("Stripe keeps answering with an error of its own.")

    async def cancel_intent(self, intent: Intent) -> None:
        """Makes sure that the intent can never be paid. Raises UnknownOutcome if that is not certain.

        Each call has a new key, which the SDK makes. An intent is cancelled only once anyway, and under a
        repeated key Stripe would repeat a refusal that came too early.
        """
        if intent.status == "canceled":
            return
        try:
            cancelled = await self._ask(self._intents.cancel_async(intent.id), Intent)
        except RefusedByStripe:  # perhaps because another process has cancelled it
            cancelled = await self.retrieve_intent(intent.id)
        if cancelled.id != intent.id or cancelled.status != "canceled":
            raise UnknownOutcome(f"Stripe does not say that {intent.id} is cancelled.")

    async def search_intents(self, payment_id: str) -> list[Intent]:
        """Returns the payment's intents. Search lags: it may miss the newest, and give an older status."""
        query = f"metadata['payment_id']:'{payment_id}'"
        call = self._intents.search_async({"query": query, "limit": 100})
        return (await self._ask(call, Page[Intent])).data

    async def search_is_current(self) -> bool:
        """Whether search finds an intent that is younger than any payment that is looked up.

        Lists, unlike search, are current. If no intent was created lately, there is nothing to test search
        with, and it counts as current.
        """
        now = int(time.time())
        call = self._intents.list_async(
            {"created": {"gte": now - NEW_INTENT_SECONDS, "lte": now - SEARCHABLE_SECONDS}, "limit": 100}
        )
        for intent in (await self._ask(call, Page[ListedIntent])).data:
            if payment_id := intent.metadata.get("payment_id"):  # others may use the account, too
                return intent.id in {found.id for found in await self.search_intents(payment_id)}
        return True

    async def create_refund(self, request: RefundRequest, amount: int) -> tuple[Refund, bool]:
        """Returns the refund of this key as it was created, and whether an earlier request created it."""
        call = self._refunds.create_async(
            {
                "payment_intent": request.charge_reference,
                "amount": amount,
                "metadata": {"refund_id": str(request.refund_id), "order_id": str(request.order_id)},
            },
            {"idempotency_key": request.key},
        )
        return await answer_within(self._answer_seconds, call, Refund)

    async def retrieve_refund(self, refund_id: str) -> Refund:
        """Returns the refund as it is now."""
        return await self._ask(self._refunds.retrieve_async(refund_id), Refund)

    async def refunds_of(self, intent_id: str) -> list[Refund]:
        """Returns all refunds of an intent, ours and others'."""
        call = self._refunds.list_async({"payment_intent": intent_id, "limit": 100})
        return (await self._ask(call, Page[Refund])).data

    def all_intents(self, since: datetime | None) -> AsyncIterator[Intent]:
        """Lists intents, newest first; with `since`, those created at that time or later."""
        return self._list(self._intents.list_async, Page[Intent], since)

    def all_refunds(self, since: datetime | None) -> AsyncIterator[Refund]:
        """Lists refunds, newest first; with `since`, those created at that time or later."""
        return self._list(self._refunds.list_async, Page[Refund], since)

    async def _list(
        self, listing: Callable[[Any], Awaitable[object]], shape: type[Page[ListedT]], since: datetime | None
    ) -> AsyncIterator[ListedT]:
        parameters: dict[str, Any] = {"limit": 100}
        if since:
            parameters["created"] = {"gte": int(since.timestamp())}
        while True:
            page = await self._ask(listing(parameters), shape)
            for listed in page.data:
                yield listed
            if not page.has_more or not page.data:
                return
            parameters["starting_after"] = page.data[-1].id

    async def _ask(self, call: Awaitable[object], shape: type[T]) -> T:
        answer, _ = await answer_within(self._answer_seconds, call, shape)
        return answer
