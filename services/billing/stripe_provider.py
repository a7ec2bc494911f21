"""Stripe as the payment provider: PaymentIntents and refunds through the official SDK.

A payment is made in two steps, because that leaves no unknown that can't be resolved at once. An intent is
created first, which charges nothing; then it is confirmed, and Stripe lets an intent succeed at most once,
whoever confirms it how often. So after a timeout, a reset or a 500 the intent is retrieved, and its status
tells what is to be done: nothing, confirm, or cancel. A decline leaves an intent that could still be paid:
it is cancelled before the decline is told.

Creating again under the same idempotency key finds the same intent. Stripe saves an answer with its key for
24 hours, errors of its own too; once `Idempotent-Replayed` shows that creating under this key ended in such
an error, no intent of this key can be confirmed by anyone, for nobody was told its id: NothingDone, and the
payment goes on under its next key.

https://docs.stripe.com/payments/paymentintents/lifecycle, https://docs.stripe.com/api/idempotent_requests
"""

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from uuid import UUID

import httpx
import msgspec
import stripe
from msgspec import Struct

from events import limits, money
from events.errors import Postponed, Unavailable, UnknownOutcome
from services.billing import refusals
from services.billing.provider import (
    Captured,
    Charge,
    ChargeAnswer,
    MadeCharge,
    MadeRefund,
    NothingDone,
    NotRepaid,
    Refused,
    Repaid,
    Repayment,
    RepaymentAnswer,
)
from services.billing.stripe_amounts import iso_amount, stripe_amount
from services.billing.stripe_errors import RefusedByStripe

ANSWER_SECONDS: Final = 8.0
"""How long Stripe may take to answer; its own deadline for a charge is longer, and then it is asked again."""
MAX_SAVED_ERRORS: Final = 8
"""How many keys for confirming an intent may end in an error of Stripe's before a pause."""

PENDING_SECONDS: Final = 60.0
"""How long a refund that is pending at Stripe is left alone: it may be for days."""

LATELY_SECONDS: Final = 3500
"""An intent younger than this was created after the last use of any key that is looked up."""
SEARCHABLE_SECONDS: Final = 300
"""An intent older than this should be found by search, which promises a minute."""

logger = logging.getLogger(__name__)


class KeyInOtherUse(Postponed):
    """Stripe knows this key with other parameters: another version of billing asked under it."""


class _SavedError(Exception):
    """An error of Stripe's that is saved with the key: asking again under it gives the same error."""


class _Failure(Struct, frozen=True):
    """Why the last attempt to pay an intent failed."""

    code: str | None = None
    decline_code: str | None = None


class _StripeCharge(Struct, frozen=True):
    created: int


class _Intent(Struct, frozen=True):
    """What counts of a PaymentIntent."""

    id: str
    status: str
    amount: int
    currency: str
    created: int
    metadata: dict[str, str]
    amount_received: int = 0
    last_payment_error: _Failure | None = None
    latest_charge: _StripeCharge | str | None = None


class _Found(Struct, frozen=True):
    data: list[_Intent]


class _ListedIntent(Struct, frozen=True):
    id: str
    metadata: dict[str, str]


class _Listed(Struct, frozen=True):
    data: list[_ListedIntent]


class _StripeRefund(Struct, frozen=True):
    """What counts of a refund."""

    id: str
    status: str
    amount: int
    currency: str
    created: int
    payment_intent: str
    metadata: dict[str, str]
    failure_reason: str | None = None
    pending_reason: str | None = None


class _StripeRefunds(Struct, frozen=True):
    data: list[_StripeRefund]


class _ListedRefund(Struct, frozen=True):
    """What counts of a refund that anybody may have made."""

    id: str
    status: str
    amount: int
    currency: str
    created: int
    payment_intent: str | None = None
    metadata: dict[str, str] = {}


class _IntentPage(Struct, frozen=True):
    data: list[_Intent]
    has_more: bool


class _RefundPage(Struct, frozen=True):
    data: list[_ListedRefund]
    has_more: bool


T = TypeVar("T")
P = TypeVar("P", _IntentPage, _RefundPage)


class StripeProvider:
    """Keeps the promises of `provider.PaymentProvider` at Stripe."""

    name = "stripe"

    def __init__(self, client: stripe.StripeClient, answer_seconds: float) -> None:
        self._intents = client.v1.payment_intents
        self._refunds = client.v1.refunds
        self._answer_seconds = answer_seconds

    async def charge(self, charge: Charge) -> ChargeAnswer:
        """Creates the intent, or finds it again, and brings it to its end."""
        amount = stripe_amount(charge.amount, charge.currency)
        if amount is None:
            return _not_chargeable(charge)
        try:
            intent, replayed = await self._create(charge, amount)
            if replayed:  # the answer saved then, not the status now
                intent = await self._retrieve(intent.id)
        except _SavedError:
            return NothingDone()
        except KeyInOtherUse:
            intent = await self._made_under_the_key(charge)
        except RefusedByStripe as refusal:
            if refusal.is_defect:
                raise
            return _answer_to(refusal)  # there is no intent
        _must_be_for(charge, amount, intent)
        if intent.status != "requires_confirmation":
            return await self._conclude(charge, amount, intent)
        refused: RefusedByStripe | None = None
        try:
            intent = await self._confirm(charge, intent)
        except RefusedByStripe as refusal:
            if refusal.is_defect:
                raise
            refused = refusal
            intent = await self._retrieve(intent.id)
        _must_be_for(charge, amount, intent)
        return await self._conclude(charge, amount, intent, refused)

    async def look_up(self, charge: Charge) -> ChargeAnswer:
        """Searches the payment's intents; cancels those that could still be paid.

        Search lags behind, by about a minute and in an outage by more; it is asked an hour after the last
        use of the key, and believed that there is nothing only if it knows what was created since then.
        https://docs.stripe.com/search#data-freshness
        """
        amount = stripe_amount(charge.amount, charge.currency)
        if amount is None:
            return _not_chargeable(charge)
        found = await self._search(str(charge.payment_id))
        if not found and not await self._search_is_fresh():
            raise UnknownOutcome("Stripe's search lags behind.")
        answers: list[ChargeAnswer] = []
        for stale in found:
            intent = await self._retrieve(stale.id)
            _must_be_for(charge, amount, intent)
            if intent.status == "requires_confirmation":
                await self._cancel(intent)
            elif intent.status != "canceled" or intent.last_payment_error:
                answers.append(await self._conclude(charge, amount, intent))
        captured = (answer for answer in answers if isinstance(answer, Captured))
        return next(captured, answers[0] if answers else NothingDone())

    async def repay(self, repayment: Repayment) -> RepaymentAnswer:
        """Refunds the intent, whole; Stripe refuses to give back more than was captured."""
        try:
            refund, replayed = await self._ask(
                self._refunds.create_async(
                    {
                        "payment_intent": repayment.charge_reference,
                        "amount": _certain_amount(repayment),
                        "metadata": {
                            "refund_id": str(repayment.refund_id),
                            "order_id": str(repayment.order_id),
                        },
                    },
                    {"idempotency_key": repayment.key},
                ),
                _StripeRefund,
            )
            if replayed:
                refund, _ = await self._ask(self._refunds.retrieve_async(refund.id), _StripeRefund)
        except _SavedError:
            return await self.look_up_repayment(repayment)
        except KeyInOtherUse:
            answer = await self.look_up_repayment(repayment)
            if isinstance(answer, NothingDone):
                raise
            return answer
        except RefusedByStripe as refusal:
            if refusal.is_defect:
                raise
            answer = await self.look_up_repayment(repayment)
            if isinstance(answer, NothingDone):
                code = refusal.reason
                return NotRepaid(f"Stripe refuses the refund: {code}.", final=refusal.ends_the_refund)
            return answer
        return _repaid(repayment, refund)

    async def look_up_repayment(self, repayment: Repayment) -> RepaymentAnswer:
        """Looks through the intent's own refunds. One that failed gave nothing back, and never will."""
        found, _ = await self._ask(
            self._refunds.list_async({"payment_intent": repayment.charge_reference, "limit": 100}),
            _StripeRefunds,
        )
        ours = [
            refund for refund in found.data if refund.metadata.get("refund_id") == str(repayment.refund_id)
        ]
        alive = [refund for refund in ours if refund.status not in _GAVE_NOTHING]
        made = [refund for refund in alive if refund.status == "succeeded"]
        return _repaid(repayment, (made or alive)[0]) if alive else NothingDone()

    async def charges(self, since: datetime | None = None) -> AsyncGenerator[MadeCharge, None]:
        """The intents that succeeded. `since` is compared with the time when an intent was created."""
        async for page in self._pages(self._intents.list_async, _IntentPage, since):
            for intent in page.data:
                payment_id = _uuid(intent.metadata.get("payment_id"))
                order_id = _uuid(intent.metadata.get("order_id"))
                if intent.status == "succeeded" and payment_id and order_id:
                    currency = intent.currency.upper()
                    yield MadeCharge(
                        reference=intent.id,
                        payment_id=payment_id,
                        order_id=order_id,
                        amount=iso_amount(intent.amount_received, currency),
                        currency=currency,
                        at=_captured_at(intent),
                        order_reference=intent.metadata.get("reference"),
                        key_hash=intent.metadata.get("key_hash"),
                    )

    async def refunds(self, since: datetime | None = None) -> AsyncGenerator[MadeRefund, None]:
        """The refunds of any intent. One that is pending counts: the money is on its way back."""
        async for page in self._pages(self._refunds.list_async, _RefundPage, since):
            for refund in page.data:
                currency = refund.currency.upper()
                stands = refund.status not in _GAVE_NOTHING
                if refund.payment_intent and stands and currency in money.EXPONENTS:
                    yield MadeRefund(
                        reference=refund.id,
                        charge_reference=refund.payment_intent,
                        amount=iso_amount(refund.amount, currency),
                        at=datetime.fromtimestamp(refund.created, UTC),
                        refund_id=_uuid(refund.metadata.get("refund_id")),
                    )

    async def _pages(
        self, listing: Callable[[Any], Awaitable[object]], shape: type[P], since: datetime | None
    ) -> AsyncIterator[P]:
        """A list of Stripe's, page by page: https://docs.stripe.com/api/pagination."""
        asked: dict[str, Any] = {"limit": 100}
        if since:
            asked["created"] = {"gte": int(since.timestamp())}
        while True:
            page, _ = await self._ask(listing(asked), shape)
            yield page
            if not page.has_more or not page.data:
                return
            asked["starting_after"] = page.data[-1].id

    async def _conclude(
        self, charge: Charge, amount: int, intent: _Intent, refused: RefusedByStripe | None = None
    ) -> ChargeAnswer:
        """The answer that the intent's status gives, after cancelling one that was declined."""
        if intent.status == "succeeded":
            if intent.amount_received != amount:
                raise UnknownOutcome(f"Stripe says that {intent.id} succeeded, but not over its amount.")
            return Captured(intent.id, charge.amount, charge.currency, _captured_at(intent))
        declined = intent.status in ("requires_payment_method", "requires_action")
        if declined or (refused and intent.status == "requires_confirmation"):
            await self._cancel(intent)
        elif intent.status == "processing":
            raise Postponed(f"Stripe says that {intent.id} is processing.")
        elif intent.status != "canceled":
            raise UnknownOutcome(f"Stripe says that {intent.id} is {intent.status}.")
        return _decline(intent, refused)

    async def _create(self, charge: Charge, amount: int) -> "tuple[_Intent, bool]":
        """The intent of this key as it was when it was created, and whether that was before this call.

        Raises KeyInOtherUse also where an older version has used the key: it gave less metadata.
        """
        metadata = {
            "payment_id": str(charge.payment_id),
            "order_id": str(charge.order_id),
            "reference": charge.order_reference,
            "key_hash": charge.key_hash,
        }
        return await self._ask(
            self._intents.create_async(
                {
                    "amount": amount,
                    "currency": charge.currency.lower(),
                    "payment_method": charge.payment_method,
                    "allowed_payment_method_types": ["card"],
                    "metadata": {name: value for name, value in metadata.items() if value is not None},
                },
                {"idempotency_key": charge.key},
            ),
            _Intent,
        )

    async def _made_under_the_key(self, charge: Charge) -> _Intent:
        """The intent that another version of billing made under this key, with other parameters.

        Raises KeyInOtherUse while search does not find it, which may lag behind by a minute.
        """
        for stale in await self._search(str(charge.payment_id)):
            intent = await self._retrieve(stale.id)
            if intent.status != "canceled" or intent.last_payment_error:
                return intent
        raise KeyInOtherUse

    async def _search(self, payment_id: str) -> list[_Intent]:
        """The payment's intents, as they were a while ago."""
        query = f"metadata['payment_id']:'{payment_id}'"
        found, _ = await self._ask(self._intents.search_async({"query": query, "limit": 100}), _Found)
        return found.data

    async def _search_is_fresh(self) -> bool:
        """Whether search finds an intent that is younger than all that is looked up.

        Lists, unlike search, show what is there. Where nothing was created lately there is nothing to try
        it with, and search counts as fresh.
        """
        now = int(time.time())
        call = self._intents.list_async(
            {"created": {"gte": now - LATELY_SECONDS, "lte": now - SEARCHABLE_SECONDS}, "limit": 100}
        )
        listed, _ = await self._ask(call, _Listed)
        for intent in listed.data:
            if payment_id := intent.metadata.get("payment_id"):  # others may use the account, too
                return intent.id in {found.id for found in await self._search(payment_id)}
        return True

    async def _retrieve(self, intent_id: str) -> _Intent:
        intent, _ = await self._ask(
            self._intents.retrieve_async(intent_id, {"expand": ["latest_charge"]}), _Intent
        )
        return intent

    async def _confirm(self, charge: Charge, intent: _Intent) -> _Intent:
        """Pays the intent under the first key of a fixed series that has no error saved with it.

        That is safe because an intent succeeds at most once.
        """
        for number in range(1, MAX_SAVED_ERRORS + 1):
            call = self._intents.confirm_async(
                intent.id,
                {"off_session": True, "error_on_requires_action": True, "expand": ["latest_charge"]},
                {"idempotency_key": f"{charge.key}-confirm-{number}"},
            )
            try:
                confirmed, _ = await self._ask(call, _Intent)
            except _SavedError:
                continue
            return confirmed
        raise UnknownOutcome("Stripe keeps answering with an error of its own.")

    async def _cancel(self, intent: _Intent) -> None:
        """Makes sure that the intent can never be paid. Raises UnknownOutcome if it could have been.

        Under a new key each time: an intent is cancelled only once, and a refusal that was saved when it
        came too early would be given again long after the intent could have been cancelled.
        """
        if intent.status == "canceled":
            return
        try:
            cancelled, _ = await self._ask(self._intents.cancel_async(intent.id), _Intent)
        except RefusedByStripe:  # perhaps because somebody else has cancelled it
            cancelled = await self._retrieve(intent.id)
        if cancelled.id != intent.id or cancelled.status != "canceled":
            raise UnknownOutcome(f"Stripe does not say that {intent.id} is cancelled.")

    async def _ask(self, call: Awaitable[object], shape: type[T]) -> tuple[T, bool]:
        """As `_answer`, within the time that an answer may take, however slowly it trickles in."""
        try:
            async with asyncio.timeout(self._answer_seconds):
                return await _answer(call, shape)
        except TimeoutError as late:
            raise UnknownOutcome("Stripe did not answer in time.") from late


class _Transport(stripe.HTTPXClient):
    """The SDK's own, but no request waits for a connection: the runners bound what is under way.

    httpx would open 100 and keep 20 of them; the SDK has no setting for it.
    """

    def __init__(self, answer_seconds: float) -> None:
        super().__init__(timeout=httpx.Timeout(answer_seconds, connect=3.0))
        trusted = ssl.create_default_context(cafile=stripe.ca_bundle_path)
        self._client_async = httpx.AsyncClient(limits=httpx.Limits(), verify=trusted)


@asynccontextmanager
async def connect(
    api_key: str, base_url: str | None, *, answer_seconds: float = ANSWER_SECONDS
) -> AsyncIterator[StripeProvider]:
    """The provider at Stripe, or at what answers like Stripe under `base_url`.

    The SDK tries nothing again by itself, because the runner does; it sends no telemetry.
    """
    stripe.enable_telemetry = False
    logging.getLogger("stripe").setLevel(logging.WARNING)  # its messages may hold a payment method's token
    transport = _Transport(answer_seconds)
    client = stripe.StripeClient(
        api_key,
        http_client=transport,
        max_network_retries=0,
        base_addresses={"api": base_url.rstrip("/")} if base_url else {},
    )
    try:
        yield StripeProvider(client, answer_seconds)
    finally:
        await transport.close_async()  # type: ignore[no-untyped-call]


async def _answer(call: Awaitable[object], shape: type[T]) -> tuple[T, bool]:
    """Stripe's answer, and whether it is one that was saved earlier under the same key.

    Raises RefusedByStripe, _SavedError, Unavailable, Postponed or UnknownOutcome.
    """
    try:
        answer = await call
    except (stripe.CardError, stripe.InvalidRequestError) as error:
        raise RefusedByStripe(error) from None  # Stripe's own message may hold the token
    except stripe.IdempotencyError as error:
        raise KeyInOtherUse from error
    except stripe.StripeError as error:
        raise _translated(error) from error
    except Exception as error:  # what the SDK makes of an answer that it can't read
        raise UnknownOutcome(f"Stripe's answer can't be read: {type(error).__name__}.") from error
    response = getattr(answer, "last_response", None)
    if response is None:
        raise UnknownOutcome("Stripe's answer is not an object.")
    try:
        return msgspec.json.decode(response.body, type=shape), _is_replayed(response.headers)
    except msgspec.MsgspecError as error:
        raise UnknownOutcome(f"Stripe's answer makes no sense: {error}") from error


def _translated(error: stripe.StripeError) -> Exception:
    """What an error that is no refusal means for the work."""
    if isinstance(error, stripe.APIConnectionError):
        return _disconnected(error.__cause__)
    if isinstance(error, stripe.AuthenticationError | stripe.PermissionError):
        return Unavailable("Stripe does not accept the API key.")
    status, code = error.http_status, error.error.code if error.error else None
    if status == 409 or code == "lock_timeout":
        return Postponed("Stripe works on another request about the same payment.")
    if status is not None and status >= 500 and _is_replayed(error.headers):
        return _SavedError()
    if status == 503 or isinstance(error, stripe.RateLimitError):
        sentence = "Stripe is unavailable." if status == 503 else "Stripe asks for a pause."
        return Unavailable(sentence, retry_after=_retry_after(error))
    return UnknownOutcome(f"Stripe answered with an error: {status} {code or ''}".rstrip() + ".")


def _disconnected(cause: BaseException | None) -> Exception:
    if isinstance(cause, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):  # nothing was sent
        return Unavailable("Stripe can't be reached.")
    return UnknownOutcome(f"The connection to Stripe failed: {type(cause).__name__}.")


def _is_replayed(headers: Any) -> bool:
    return bool(headers) and str(headers.get("idempotent-replayed", "")).lower() == "true"


def _retry_after(error: stripe.StripeError) -> float | None:
    """Seconds that the header names; a date is not read, the runner's own pause will do."""
    value = (error.headers or {}).get("retry-after", "")
    return float(value) if value.isdecimal() else None


def _must_be_for(charge: Charge, amount: int, intent: _Intent) -> None:
    """Raises UnknownOutcome unless the intent is that of this payment."""
    if (
        intent.metadata.get("payment_id") != str(charge.payment_id)
        or intent.metadata.get("order_id") != str(charge.order_id)
        or intent.amount != amount
        or intent.currency != charge.currency.lower()
    ):
        raise UnknownOutcome("Stripe answered about another payment.")


def _certain_amount(repayment: Repayment) -> int:
    amount = stripe_amount(repayment.amount, repayment.currency)
    if amount is None:
        raise ValueError(f"Stripe can't have captured {repayment.amount} {repayment.currency}.")
    return amount


_GAVE_NOTHING: Final = ("failed", "canceled")
"""Statuses of a refund that is over and gave nothing back: https://docs.stripe.com/refunds#failed-refunds"""


def _repaid(repayment: Repayment, refund: _StripeRefund) -> Repaid | NotRepaid:
    """Raises UnknownOutcome unless it is our refund, Postponed unless it is over."""
    if (
        refund.metadata.get("refund_id") != str(repayment.refund_id)
        or refund.payment_intent != repayment.charge_reference
        or refund.amount != _certain_amount(repayment)
        or refund.currency != repayment.currency.lower()
    ):
        raise UnknownOutcome("Stripe answered about another refund.")
    if refund.status in _GAVE_NOTHING:
        why = refund.failure_reason or "no reason given"
        return NotRepaid(f"Stripe says that the refund {refund.id} has {refund.status}: {why}.")
    if refund.status in ("pending", "requires_action"):  # for seconds, or for days
        why = f" ({refund.pending_reason})" if refund.pending_reason else ""
        raise Postponed(
            f"Stripe says that the refund {refund.id} is {refund.status}{why}.", retry_after=PENDING_SECONDS
        )
    if refund.status != "succeeded":
        raise UnknownOutcome(f"Stripe says that the refund {refund.id} is {refund.status}.")
    return Repaid(refund.id, repayment.amount, datetime.fromtimestamp(refund.created, UTC))


def _captured_at(intent: _Intent) -> datetime:
    charge = intent.latest_charge
    return datetime.fromtimestamp(
        charge.created if isinstance(charge, _StripeCharge) else intent.created, UTC
    )


def _uuid(text: str | None) -> UUID | None:
    """The id in a piece of metadata. Others may use the account, too, and write anything there."""
    try:
        return UUID(text or "")
    except ValueError:
        return None


def _decline(intent: _Intent, refused: RefusedByStripe | None) -> Refused:
    """Why an intent can't be paid: as its last attempt tells, else as the request was refused."""
    if failure := intent.last_payment_error:
        if failure.decline_code and failure.decline_code != "generic_decline":
            return refusals.declined(failure.decline_code)
        return refusals.declined(failure.code or refusals.CARD_DECLINED)
    if refused and refused.code != "payment_intent_unexpected_state":
        return _answer_to(refused)
    if intent.status == "requires_action":
        return refusals.declined("authentication_required")
    return refusals.refused("payment_canceled")


def _answer_to(refusal: RefusedByStripe) -> Refused:
    logger.warning("%s The payment is told as refused.", refusal)
    return refusals.declined(refusal.reason) if refusal.of_the_card else refusals.refused(refusal.reason)


def _not_chargeable(charge: Charge) -> Refused:
    return refusals.refused(limits.obstacle(charge.amount, charge.currency) or "currency_unsupported")
