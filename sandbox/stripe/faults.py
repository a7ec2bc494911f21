"""The fault plan: which requests the server answers wrongly, how, and how often that has taken effect.

A test plans a behaviour for the next requests of a step, of one order or of any (a script), for a share of
the requests (a rate), or for every request during some time (an outage). A script waits for a request on
which it can take effect: a saved answer is only repeated, so a behaviour that changes the work waits for a
request that does some. A behaviour is counted when it takes effect, not when it is planned.
"""

import random
import time
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import msgspec


class Step(StrEnum):
    """The endpoint of a request."""

    CREATE = "create"
    CONFIRM = "confirm"
    RETRIEVE = "retrieve"
    CANCEL = "cancel"
    SEARCH = "search"
    LIST = "list"
    REFUND = "refund"
    RETRIEVE_REFUND = "retrieve_refund"
    LIST_REFUNDS = "list_refunds"


class Behaviour(StrEnum):
    """A way to misbehave."""

    # Before the request is read: nothing is done and nothing is saved.
    TIMEOUT_BEFORE = "timeout_before"
    """No answer, and nothing done."""
    REFUSED = "refused"
    """The connection is reset at once."""
    ERROR = "error"
    """500."""
    UNAVAILABLE = "unavailable"
    """503."""
    RATE_LIMITED = "rate_limited"
    """429 with Retry-After."""
    LOCK_TIMEOUT = "lock_timeout"
    """429, as if another request were using the same object."""
    KEY_IN_USE = "key_in_use"
    """409, as if another request with the key were under way."""
    KEY_CONFLICT = "key_conflict"
    """400, as if the key had been used with other parameters."""

    # While the work is done.
    SLOW = "slow"
    """Waits before the work begins. The key is in use meanwhile."""
    SAVED_ERROR_BEFORE = "saved_error_before"
    """Does nothing, and saves a 500 with the key."""
    SAVED_ERROR_AFTER = "saved_error_after"
    """Does the work, and saves a 500 with the key."""
    PROCESSING = "processing"
    """A confirmed intent stays `processing` for a while. At other steps only the answer says `processing`."""

    # After the work is done and saved: only the answer goes wrong.
    TIMEOUT_AFTER = "timeout_after"
    """No answer."""
    RESET = "reset"
    """The connection is reset in the middle of the answer."""
    SLOW_DRIP = "slow_drip"
    """The answer arrives a few bytes at a time."""
    NONSENSE = "nonsense"
    """HTML with status 200."""
    NO_OBJECT = "no_object"
    """A JSON array with status 200."""
    EMPTY_OBJECT = "empty_object"
    """An empty JSON object with status 200."""
    ANOTHER_ORDER = "another_order"
    """The answer shows another order's object, already paid, refunded or canceled."""
    UNKNOWN_STATUS = "unknown_status"
    """The object has a status that Stripe does not have."""


BEFORE: Final = frozenset(
    {
        Behaviour.TIMEOUT_BEFORE,
        Behaviour.REFUSED,
        Behaviour.ERROR,
        Behaviour.UNAVAILABLE,
        Behaviour.RATE_LIMITED,
        Behaviour.LOCK_TIMEOUT,
        Behaviour.KEY_IN_USE,
        Behaviour.KEY_CONFLICT,
    }
)
"""Behaviours that refuse a request before it is read."""
SAVED: Final = frozenset({Behaviour.SAVED_ERROR_BEFORE, Behaviour.SAVED_ERROR_AFTER})


class Timing(msgspec.Struct, forbid_unknown_fields=True):
    """Durations of the simulated processes, and two limits."""

    key_seconds: float = 86_400.0
    """How long a key is remembered: at least 24 hours, https://docs.stripe.com/api/idempotent_requests."""
    search_seconds: float = 60.0
    """How far search lags behind: under a minute, https://docs.stripe.com/search#data-freshness."""
    processing_seconds: float = 5.0
    """How long a payment with the behaviour PROCESSING takes."""
    pending_refund_seconds: float = 5.0
    """How long a refund to `pm_card_pendingRefund` is pending."""
    failing_refund_seconds: float = 0.0
    """How long a refund to `pm_card_refundFail` is `succeeded` before it fails. 0: it fails at once."""
    failing_refunds: int = 1_000_000
    """How many refunds of one payment with `pm_card_refundFail` fail. Later ones succeed."""
    hang_seconds: float = 60.0
    """How long a connection stays open without an answer, unless the client disconnects first."""
    slow_seconds: float = 2.0
    drip_seconds: float = 20.0
    """How long an answer with SLOW_DRIP takes."""
    retry_after: int = 1
    """The `Retry-After` of a 429."""


class Effect(msgspec.Struct, frozen=True):
    """How often a behaviour took effect on a step of an order."""

    behaviour: Behaviour
    step: Step
    order_id: str | None
    times: int


@dataclass
class Rate:
    """A behaviour for a share of the requests; `step` None is every step."""

    behaviour: Behaviour
    step: Step | None
    share: float
    dice: random.Random


@dataclass
class FaultPlan:
    """The planned faults, none at first, and the counts of their effects."""

    scripts: dict[tuple[str | None, Step], deque[Behaviour]] = field(
        default_factory=lambda: defaultdict(deque)
    )
    """By order and step, None for any order. Each request takes one entry."""
    rates: list[Rate] = field(default_factory=list)
    outage: Behaviour | None = None
    outage_until: float = 0.0
    """On this process's monotonic clock."""
    _counts: Counter[tuple[Behaviour, Step, str | None]] = field(default_factory=Counter)

    def script(self, behaviour: Behaviour, step: Step, order_id: str | None, times: int) -> None:
        """Plans the behaviour for the next requests of the step, after those planned before."""
        self.scripts[order_id, step].extend([behaviour] * times)

    def rate(self, behaviour: Behaviour, step: Step | None, share: float, seed: int | None) -> None:
        """Plans the behaviour for this share of the requests. The same seed chooses the same requests."""
        dice = random.Random(seed)  # noqa: S311  # no secret
        self.rates.append(Rate(behaviour, step, share, dice))

    def begin_outage(self, behaviour: Behaviour, seconds: float) -> None:
        """Plans the behaviour for every request during this time. 0 seconds end the outage."""
        self.outage, self.outage_until = behaviour, time.monotonic() + seconds

    def reset(self) -> None:
        """Drops every planned fault. The counts stay."""
        self.scripts.clear()
        self.rates.clear()
        self.outage = None

    @property
    def is_empty(self) -> bool:
        """Whether no fault is planned."""
        return not (self.scripts or self.rates or self.outage)

    def choose(self, step: Step, order_id: str | None, *, executes: bool, saves: bool) -> Behaviour | None:
        """Returns the behaviour for this request, taken from its script if it has one, or None.

        `executes`: the request will do work, so its answer is neither saved already nor an error.
        `saves`: its answer will be saved with a key.
        """

        def possible(behaviour: Behaviour) -> bool:
            return (behaviour not in SAVED or (executes and saves)) and not (
                (behaviour is Behaviour.SLOW and not executes)
                or (behaviour is Behaviour.PROCESSING and step is Step.CONFIRM and not executes)
            )

        for order in (order_id, None):
            script = self.scripts.get((order, step))
            if script and possible(script[0]):
                behaviour = script.popleft()
                if not script:
                    del self.scripts[order, step]
                return behaviour
        if self.outage and time.monotonic() >= self.outage_until:
            self.outage = None
        if self.outage and possible(self.outage):
            return self.outage
        for rate in self.rates:
            if rate.step in (None, step) and rate.dice.random() < rate.share and possible(rate.behaviour):
                return rate.behaviour
        return None

    def record(self, behaviour: Behaviour, step: Step, order_id: str | None) -> None:
        """Counts an effect of the behaviour."""
        self._counts[behaviour, step, order_id] += 1

    def effects(self) -> list[Effect]:
        """Returns the counts so far."""
        return [Effect(*effect, times) for effect, times in self._counts.items()]
