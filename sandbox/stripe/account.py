"""Stripe's endpoints on the ledger, each request in one transaction.

Idempotency follows https://docs.stripe.com/api/idempotent_requests and
https://docs.stripe.com/error-low-level#idempotency: once an endpoint has begun its work, the status and body
of its answer are saved with the key, errors included, and repeated for 24 hours. Parameters that fail
validation and conflicts with a concurrent request are not saved.
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from sandbox.stripe import intents, refunds
from sandbox.stripe.errors import StripeRefusal, api_error, invalid, key_reused, missing
from sandbox.stripe.faults import Behaviour, Step, Timing
from sandbox.stripe.forms import Form
from sandbox.stripe.ledger import Ledger, SavedAnswer
from sandbox.stripe.objects import Intent, Refund

T = TypeVar("T")

_encode: Final = msgspec.json.Encoder().encode
_CLAUSE: Final = re.compile(r"""metadata\[['"]([^'"]+)['"]\]\s*:\s*['"]([^'"]*)['"]""")
_CREATED: Final = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


class Answer(NamedTuple):
    """Status and body of an answer."""

    status: int
    body: bytes
    replayed: bool = False
    """Whether an earlier request with the same key saved it."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request: the endpoint, the object, the parameters and the idempotency key."""

    step: Step
    target: str
    """The id of the object in the path, or empty."""
    path: str
    form: Form
    key: str | None
    """The idempotency key. Only a POST has one."""

    @property
    def fingerprint(self) -> bytes:
        """A digest of path and parameters, in any order. Requests with one key must have the same."""
        return blake2b(repr((self.path, sorted(self.form.pairs))).encode(), digest_size=16).digest()


class Account:
    """A merchant's account: Stripe's endpoints on its ledger."""

    def __init__(
        self, ledger: Ledger, timing: Timing | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.ledger = ledger
        self.timing = timing or Timing()
        self._clock = clock
        self._endpoints: Final[dict[Step, Callable[[Request], bytes]]] = {
            Step.CREATE: self._create,
            Step.CONFIRM: self._confirm,
            Step.RETRIEVE: self._retrieve,
            Step.CANCEL: self._cancel,
            Step.SEARCH: self._search,
            Step.LIST: self._list,
            Step.REFUND: self._refund,
            Step.RETRIEVE_REFUND: self._retrieve_refund,
            Step.LIST_REFUNDS: self._list_refunds,
        }

    def replay(self, request: Request) -> Answer | None:
        """Returns the answer saved with the request's key, if there is one.

        Raises StripeRefusal (idempotency_error) if it was saved for other parameters.
        """
        if request.key is None:
            return None
        saved = self.ledger.saved(request.key, self._clock() - self.timing.key_seconds)
        if saved is None:
            return None
        if saved.fingerprint != request.fingerprint:
            raise key_reused(request.key)
        return Answer(saved.status, saved.body, replayed=True)

    def perform(self, request: Request, behaviour: Behaviour | None = None) -> tuple[Answer, bool]:
        """Does the work and commits it together with the answer.

        Also returns whether the behaviour took effect. One that only changes how the answer is sent takes
        effect later.
        """
        now = self._clock()
        with self.ledger.transaction():
            self._finish_due(now)
            answer, executed = self._run_endpoint(request, behaviour)
            fails_after = behaviour is Behaviour.SAVED_ERROR_AFTER and executed
            if fails_after:
                answer = _error_answer(api_error())
            if request.key is not None and executed:
                saved = SavedAnswer(request.fingerprint, answer.status, answer.body)
                self.ledger.save(request.key, saved, now)
        processing = behaviour is Behaviour.PROCESSING and executed and answer.status == 200
        return answer, fails_after or processing or behaviour is Behaviour.SAVED_ERROR_BEFORE

    def order_of(self, request: Request) -> str | None:
        """Returns the `order_id` in the metadata of the request's object, if it has one."""
        if request.step in (Step.CREATE, Step.REFUND):
            return request.form.nested("metadata").get("order_id")
        if request.step is Step.SEARCH:
            found = self.ledger.with_metadata(_CLAUSE.findall(request.form.get("query") or "") or [("", "")])
            return found[0][0].metadata.get("order_id") if found else None
        name = request.target or request.form.get("payment_intent") or ""
        stored = (
            self.ledger.refund(name) if request.step is Step.RETRIEVE_REFUND else self.ledger.intent(name)
        )
        return stored.metadata.get("order_id") if stored else None

    def forget_keys(self) -> int:
        """Forgets every idempotency key, as if a day had passed. Returns how many there were."""
        with self.ledger.transaction():
            return self.ledger.forget_keys(self._clock())

    def finish_due(self) -> None:
        """Finishes the intents and refunds whose processing time is over."""
        with self.ledger.transaction():
            self._finish_due(self._clock())

    def _finish_due(self, now: float) -> None:
        for intent in self.ledger.due_intents(now):
            self._record(intents.processed(intent, int(now)), now)
        for refund in self.ledger.due_refunds(now):
            charge = self.ledger.charge(refund.charge)
            assert charge
            self.ledger.change_refund(refunds.ended(refund, charge))

    def _run_endpoint(self, request: Request, behaviour: Behaviour | None) -> tuple[Answer, bool]:
        """Returns the endpoint's answer, and whether the endpoint had begun its work."""
        try:
            if behaviour is Behaviour.SAVED_ERROR_BEFORE:
                raise api_error()
            if behaviour is Behaviour.PROCESSING and request.step is Step.CONFIRM:
                return Answer(200, self._confirm(request, completes=False)), True
            return Answer(200, self._endpoints[request.step](request)), True
        except StripeRefusal as refusal:
            return _error_answer(refusal), refusal.executed

    # PaymentIntents

    def _create(self, request: Request) -> bytes:
        now = self._clock()
        intent = intents.created(request.form, int(now))
        self.ledger.add_intent(intent, now)
        if request.form.is_true("confirm"):
            return self._pay(intent, request.form)
        return self._encoded(intent, request.form)

    def _confirm(self, request: Request, *, completes: bool = True) -> bytes:
        intent = self._existing_intent(request.target)
        request.form.check(intents.CONFIRM)
        return self._pay(intent, request.form, completes=completes)

    def _pay(self, intent: Intent, form: Form, *, completes: bool = True) -> bytes:
        now = self._clock()
        attempt = intents.confirmed(intent, form, int(now), completes=completes)
        self._record(attempt, now)
        if attempt.refusal:
            raise attempt.refusal
        return self._encoded(attempt.intent, form)

    def _record(self, attempt: intents.Attempt, now: float) -> None:
        if attempt.charge:
            self.ledger.add_charge(attempt.charge)
        processing = attempt.intent.status == "processing"
        settles_at = now + self.timing.processing_seconds if processing else None
        self.ledger.change_intent(attempt.intent, now, settles_at=settles_at)

    def _retrieve(self, request: Request) -> bytes:
        return self._encoded(self._existing_intent(request.target), request.form)

    def _cancel(self, request: Request) -> bytes:
        intent = self._existing_intent(request.target)
        request.form.check(intents.CANCEL)
        now = self._clock()
        intent = intents.canceled(intent, request.form, int(now))
        self.ledger.change_intent(intent, now)
        return self._encoded(intent, request.form)

    def _search(self, request: Request) -> bytes:
        """Searches by metadata in the state of `search_seconds` ago.

        Younger intents are not found, and intents that changed since are shown as they were created.
        https://docs.stripe.com/search#data-freshness, https://docs.stripe.com/api/payment_intents/search
        """
        query = request.form.required("query")
        labels = _CLAUSE.findall(query)
        if not labels or _CLAUSE.sub("", query).upper().split() != ["AND"] * (len(labels) - 1):
            raise invalid(f"We were unable to parse your search query: {query}", param="query")
        indexed_until = self._clock() - self.timing.search_seconds
        data = [
            intent if changed_at <= indexed_until else intents.as_created(intent)
            for intent, created_at, changed_at in self.ledger.with_metadata(labels)
            if created_at <= indexed_until
        ]
        limit = _limit(request.form)
        return _page(request, [_encode(intent) for intent in data], limit, kind="search_result")

    def _list(self, request: Request) -> bytes:
        limit = _limit(request.form)
        return _page(request, self._bodies(request, "intents", "payment_intent", limit), limit)

    def _existing_intent(self, intent_id: str) -> Intent:
        intent = self.ledger.intent(intent_id)
        if intent is None:
            raise missing("payment_intent", intent_id, "intent")
        return intent

    def _encoded(self, intent: Intent, form: Form) -> bytes:
        """Encodes the intent, with its charge if the request expands it."""
        if intent.latest_charge and form.expands("latest_charge"):
            expanded: dict[str, Any] = msgspec.to_builtins(intent)
            return _encode(expanded | {"latest_charge": self.ledger.charge(intent.latest_charge)})
        return _encode(intent)

    # Refunds

    def _refund(self, request: Request) -> bytes:
        form = request.form
        form.check(refunds.CREATE)
        intent_id = form.required("payment_intent")
        intent = self.ledger.intent(intent_id)
        if intent is None:
            raise missing("payment_intent", intent_id, "payment_intent")
        now = self._clock()
        refund = refunds.created(form, intent, self.ledger.given_back(intent_id), int(now))
        charge = self.ledger.charge(refund.charge)
        assert charge
        refund, ends_in = refunds.begun(refund, charge, self.ledger.refunds_made(intent_id), self.timing)
        self.ledger.add_refund(refund, settles_at=None if ends_in is None else now + ends_in)
        return _encode(refund)

    def _retrieve_refund(self, request: Request) -> bytes:
        refund: Refund | None = self.ledger.refund(request.target)
        if refund is None:
            raise missing("refund", request.target, "refund")
        return _encode(refund)

    def _list_refunds(self, request: Request) -> bytes:
        limit = _limit(request.form)
        intent_id = request.form.get("payment_intent")
        where = [("intent =", intent_id)] if intent_id else []
        return _page(request, self._bodies(request, "refunds", "refund", limit, where), limit)

    def _bodies(
        self,
        request: Request,
        table: str,
        kind: str,
        limit: int,
        where: Sequence[tuple[str, str | int]] = (),
    ) -> list[bytes]:
        form = request.form
        after, before = form.get("starting_after"), form.get("ending_before")
        if after and before:
            raise invalid("You may only specify one of these parameters: ending_before, starting_after.")
        times = [
            (f"created {_CREATED[name]}", int(value))
            for name, value in form.nested("created").items()
            if name in _CREATED and value.isdecimal()
        ]
        found = self.ledger.page(table, limit, after=after, before=before, where=[*where, *times])
        if found is None:
            raise missing(
                kind, after or before or "", "starting_after" if after else "ending_before", status=400
            )
        return found


def _error_answer(refusal: StripeRefusal) -> Answer:
    return Answer(refusal.status, _encode({"error": refusal.error}))


def _limit(form: Form) -> int:
    """1 to 100, 10 by default: https://docs.stripe.com/api/pagination."""
    limit = form.integer("limit")
    if limit is None:
        return 10
    if not 1 <= limit <= 100:
        raise invalid("This value must be between 1 and 100.", param="limit")
    return limit


class _Page(Struct):
    object: str
    data: list[msgspec.Raw]
    has_more: bool
    url: str


def _page(request: Request, bodies: Sequence[bytes], limit: int, *, kind: str = "list") -> bytes:
    """Encodes the first `limit` of the bodies as one page of Stripe's lists."""
    page = _Page(kind, [msgspec.Raw(body) for body in bodies[:limit]], len(bodies) > limit, request.path)
    return _encode(page)
