"""The payment provider at Stripe: turns the outcomes of intents and refunds into billing's answers."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final
from uuid import UUID

from events import limits, money
from events.errors import Postponed, UnknownOutcome
from services.billing import declines
from services.billing.provider import (
    ChargeAnswer,
    ChargeCaptured,
    ChargeDeclined,
    ChargeRequest,
    KeyVoid,
    ListedCharge,
    ListedRefund,
    RefundAnswer,
    RefundFailed,
    RefundRequest,
    RefundSucceeded,
)
from services.billing.stripe.amounts import iso_amount, stripe_amount
from services.billing.stripe.calls import StripeCalls
from services.billing.stripe.client import ANSWER_SECONDS, open_client
from services.billing.stripe.errors import KeyInOtherUse, RefusedByStripe, SavedError
from services.billing.stripe.objects import Intent, Refund

PENDING_SECONDS: Final = 60.0
"""Pause before a refund that is pending at Stripe is asked for again. It can be pending for days."""

logger = logging.getLogger(__name__)


class StripeProvider:
    """A `provider.ListingProvider` at Stripe."""

    name = "stripe"

    def __init__(self, calls: StripeCalls) -> None:
        self._calls = calls

    async def charge(self, request: ChargeRequest) -> ChargeAnswer:
        """Creates the intent, or finds it again, and confirms it."""
        amount = stripe_amount(request.amount, request.currency)
        if amount is None:
            return _not_chargeable(request)
        try:
            intent, replayed = await self._calls.create_intent(request, amount)
            if replayed:  # the intent as it was then, not as it is now
                intent = await self._calls.retrieve_intent(intent.id)
        except SavedError:
            return KeyVoid()
        except KeyInOtherUse:
            intent = await self._intent_of_another_version(request)
        except RefusedByStripe as refusal:
            if refusal.is_defect:
                raise
            return _decline_of(refusal)  # there is no intent
        _check_intent(request, amount, intent)
        if intent.status != "requires_confirmation":
            return await self._conclude(request, amount, intent)
        refused: RefusedByStripe | None = None
        try:
            intent = await self._calls.confirm_intent(intent.id, request.key)
        except RefusedByStripe as refusal:
            if refusal.is_defect:
                raise
            refused = refusal
            intent = await self._calls.retrieve_intent(intent.id)
        _check_intent(request, amount, intent)
        return await self._conclude(request, amount, intent, refused)

    async def look_up_charge(self, request: ChargeRequest) -> ChargeAnswer:
        """Searches the payment's intents, and cancels those that could still be paid.

        Search lags by about a minute, and by more in an outage. It is asked an hour after the last use of the
        key. An empty result counts only if search knows an intent that was created since then.
        https://docs.stripe.com/search#data-freshness
        """
        amount = stripe_amount(request.amount, request.currency)
        if amount is None:
            return _not_chargeable(request)
        found = await self._calls.search_intents(str(request.payment_id))
        if not found and not await self._calls.search_is_current():
            raise UnknownOutcome("Stripe's search lags behind.")
        answers: list[ChargeAnswer] = []
        for stale in found:
            intent = await self._calls.retrieve_intent(stale.id)
            _check_intent(request, amount, intent)
            if intent.status == "requires_confirmation":
                await self._calls.cancel_intent(intent)
            elif intent.status != "canceled" or intent.last_payment_error:
                answers.append(await self._conclude(request, amount, intent))
        captured = (answer for answer in answers if isinstance(answer, ChargeCaptured))
        return next(captured, answers[0] if answers else KeyVoid())

    async def refund(self, request: RefundRequest) -> RefundAnswer:
        """Refunds the whole intent. Stripe refuses to refund more than was captured."""
        try:
            refund, replayed = await self._calls.create_refund(request, _refund_amount(request))
            if replayed:
                refund = await self._calls.retrieve_refund(refund.id)
        except SavedError:
            return await self.look_up_refund(request)
        except KeyInOtherUse:
            answer = await self.look_up_refund(request)
            if isinstance(answer, KeyVoid):
                raise
            return answer
        except RefusedByStripe as refusal:
            if refusal.is_defect:
                raise
            answer = await self.look_up_refund(request)
            if isinstance(answer, KeyVoid):
                reason = f"Stripe refuses the refund: {refusal.reason}."
                return RefundFailed(reason, final=refusal.is_final_for_refund)
            return answer
        return _refund_answer(request, refund)

    async def look_up_refund(self, request: RefundRequest) -> RefundAnswer:
        """Looks through the intent's refunds. A failed one does not count: another can be made."""
        refunds = await self._calls.refunds_of(request.charge_reference)
        ours = [refund for refund in refunds if refund.metadata.get("refund_id") == str(request.refund_id)]
        not_failed = [refund for refund in ours if not refund.has_failed]
        succeeded = [refund for refund in not_failed if refund.status == "succeeded"]
        return _refund_answer(request, (succeeded or not_failed)[0]) if not_failed else KeyVoid()

    async def list_charges(self, since: datetime | None = None) -> AsyncGenerator[ListedCharge, None]:
        """Lists the intents that succeeded. `since` is compared with the time of an intent's creation."""
        async for intent in self._calls.all_intents(since):
            payment_id = _uuid(intent.metadata.get("payment_id"))
            order_id = _uuid(intent.metadata.get("order_id"))
            if intent.status == "succeeded" and payment_id and order_id:
                currency = intent.currency.upper()
                yield ListedCharge(
                    reference=intent.id,
                    payment_id=payment_id,
                    order_id=order_id,
                    amount=iso_amount(intent.amount_received, currency),
                    currency=currency,
                    at=intent.captured_at,
                    order_reference=intent.metadata.get("reference"),
                    key_hash=intent.metadata.get("key_hash"),
                )

    async def list_refunds(self, since: datetime | None = None) -> AsyncGenerator[ListedRefund, None]:
        """Lists the refunds of all intents. Pending ones count, because their money is on its way back."""
        async for refund in self._calls.all_refunds(since):
            currency = refund.currency.upper()
            if refund.payment_intent and not refund.has_failed and currency in money.EXPONENTS:
                yield ListedRefund(
                    reference=refund.id,
                    charge_reference=refund.payment_intent,
                    amount=iso_amount(refund.amount, currency),
                    at=refund.created_at,
                    refund_id=_uuid(refund.metadata.get("refund_id")),
                )

    async def _conclude(
        self, request: ChargeRequest, amount: int, intent: Intent, refused: RefusedByStripe | None = None
    ) -> ChargeAnswer:
        """Returns the answer that follows from the intent's status. Cancels a declined intent first."""
        if intent.status == "succeeded":
            if intent.amount_received != amount:
                raise UnknownOutcome(f"Stripe says that {intent.id} succeeded, but with another amount.")
            return ChargeCaptured(intent.id, request.amount, request.currency, intent.captured_at)
        declined = intent.status in ("requires_payment_method", "requires_action")
        if declined or (refused and intent.status == "requires_confirmation"):
            await self._calls.cancel_intent(intent)
        elif intent.status == "processing":
            raise Postponed(f"Stripe says that {intent.id} is processing.")
        elif intent.status != "canceled":
            raise UnknownOutcome(f"Stripe says that {intent.id} is {intent.status}.")
        return _decline(intent, refused)

    async def _intent_of_another_version(self, request: ChargeRequest) -> Intent:
        """Finds the intent that another version of billing created under this key, with other parameters.

        Raises KeyInOtherUse until search finds it, which can take a minute.
        """
        for stale in await self._calls.search_intents(str(request.payment_id)):
            intent = await self._calls.retrieve_intent(stale.id)
            if intent.status != "canceled" or intent.last_payment_error:
                return intent
        raise KeyInOtherUse


@asynccontextmanager
async def connect(
    api_key: str, base_url: str | None, *, answer_seconds: float = ANSWER_SECONDS
) -> AsyncIterator[StripeProvider]:
    """Connects to Stripe, or to the server at `base_url`, which answers as Stripe does."""
    async with open_client(api_key, base_url, answer_seconds) as client:
        yield StripeProvider(StripeCalls(client, answer_seconds))


def _check_intent(request: ChargeRequest, amount: int, intent: Intent) -> None:
    """Raises UnknownOutcome unless the intent is that of the requested payment."""
    if (
        intent.metadata.get("payment_id") != str(request.payment_id)
        or intent.metadata.get("order_id") != str(request.order_id)
        or intent.amount != amount
        or intent.currency != request.currency.lower()
    ):
        raise UnknownOutcome("Stripe answered about another payment.")


def _refund_amount(request: RefundRequest) -> int:
    amount = stripe_amount(request.amount, request.currency)
    if amount is None:
        raise ValueError(f"Stripe can't have captured {request.amount} {request.currency}.")
    return amount


def _refund_answer(request: RefundRequest, refund: Refund) -> RefundSucceeded | RefundFailed:
    """Raises UnknownOutcome unless the refund is the requested one, and Postponed while it is pending."""
    if (
        refund.metadata.get("refund_id") != str(request.refund_id)
        or refund.payment_intent != request.charge_reference
        or refund.amount != _refund_amount(request)
        or refund.currency != request.currency.lower()
    ):
        raise UnknownOutcome("Stripe answered about another refund.")
    if refund.has_failed:
        why = refund.failure_reason or "no reason given"
        return RefundFailed(f"Stripe says that the refund {refund.id} is {refund.status}: {why}.")
    if refund.status in ("pending", "requires_action"):  # for seconds, or for days
        why = f" ({refund.pending_reason})" if refund.pending_reason else ""
        raise Postponed(
            f"Stripe says that the refund {refund.id} is {refund.status}{why}.", retry_after=PENDING_SECONDS
        )
    if refund.status != "succeeded":
        raise UnknownOutcome(f"Stripe says that the refund {refund.id} is {refund.status}.")
    return RefundSucceeded(refund.id, request.amount, refund.created_at)


def _uuid(text: str | None) -> UUID | None:
    """Parses the id in a piece of metadata. Other users of the account may write anything there."""
    try:
        return UUID(text or "")
    except ValueError:
        return None


def _decline(intent: Intent, refused: RefusedByStripe | None) -> ChargeDeclined:
    """Returns the reason of the intent's last attempt, or else that of the refused request."""
    if failure := intent.last_payment_error:
        if failure.decline_code and failure.decline_code != "generic_decline":
            return declines.card_declined(failure.decline_code)
        return declines.card_declined(failure.code or declines.CARD_DECLINED)
    if refused and refused.code != "payment_intent_unexpected_state":
        return _decline_of(refused)
    if intent.status == "requires_action":
        return declines.card_declined("authentication_required")
    return declines.payment_declined("payment_canceled")


def _decline_of(refusal: RefusedByStripe) -> ChargeDeclined:
    logger.warning("%s The payment is declined.", refusal)
    if refusal.is_card_error:
        return declines.card_declined(refusal.reason)
    return declines.payment_declined(refusal.reason)


def _not_chargeable(request: ChargeRequest) -> ChargeDeclined:
    return declines.payment_declined(
        limits.obstacle(request.amount, request.currency) or "currency_unsupported"
    )
