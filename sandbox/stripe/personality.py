"""The personality: in which way the server misbehaves next, and what of that has had its effect.

A behaviour is told for the next requests of a step (of one order, or of any), for a share of a step's
requests, or for all requests for some time. A script waits until it can have its effect: an answer that was
saved is only replayed, so what happens while work is done waits for a request that does any.
A behaviour counts when it has had its effect, never because it was told.
"""

import random
import time
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import msgspec


class Step(StrEnum):
    """What a request asks for."""

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

    # Before anything is looked at: nothing is done, nothing is saved.
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
    """429, because another request is said to work on the same object."""
    KEY_IN_USE = "key_in_use"
    """409, because another request with the key is said to be under way."""
    KEY_CONFLICT = "key_conflict"
    """400, because the key is said to have been used with other parameters."""

    # While the work is done.
    SLOW = "slow"
    """Takes its time before it does anything; the key is in use meanwhile."""
    SAVED_ERROR_BEFORE = "saved_error_before"
    """Does nothing; a 500 is the answer, and saved with the key."""
    SAVED_ERROR_AFTER = "saved_error_after"
    """Does its work; a 500 is the answer, and saved with the key."""
    PROCESSING = "processing"
    """A confirmed intent is `processing` for a while; the answer to any other step only says so."""

    # Once everything is done and saved: only the answer suffers.
    TIMEOUT_AFTER = "timeout_after"
    """No answer."""
    RESET = "reset"
    """The connection is reset in the middle of the answer."""
    SLOW_DRIP = "slow_drip"
    """The answer comes a few bytes at a time."""
    NONSENSE = "nonsense"
    """Something else with status 200."""
    NO_OBJECT = "no_object"
    """JSON, but no object, with status 200."""
    EMPTY_OBJECT = "empty_object"
    """An object without anything in it, with status 200."""
    ANOTHER_ORDER = "another_order"
    """The answer is about another order's object, paid, given back or cancelled already."""
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
"""Nothing was done and nothing was saved."""
SAVED: Final = frozenset({Behaviour.SAVED_ERROR_BEFORE, Behaviour.SAVED_ERROR_AFTER})


class Pace(msgspec.Struct, forbid_unknown_fields=True):
    """How long things take, in seconds."""

    key_seconds: float = 86_400.0
    """How long a key is remembered: at least 24 hours, https://docs.stripe.com/api/idempotent_requests."""
    search_seconds: float = 60.0
    """How far search lags behind: under a minute, https://docs.stripe.com/search#data-freshness."""
    processing_seconds: float = 5.0
    """How long a payment is processing that was told to."""
    pending_refund_seconds: float = 5.0
    """How long a refund to `pm_card_pendingRefund` is pending."""
    failing_refund_seconds: float = 0.0
    """When a refund to `pm_card_refundFail` fails, having succeeded until then; 0: it is made as failed."""
    failing_refunds: int = 1_000_000
    """How many refunds of one payment with `pm_card_refundFail` fail."""
    hang_seconds: float = 60.0
    """How long a connection is held open without an answer, unless the client gives up first."""
    slow_seconds: float = 2.0
    drip_seconds: float = 20.0
    """How long an answer drips."""
    retry_after: int = 1
    """What a 429 asks for."""


class Effect(msgspec.Struct, frozen=True):
    """How often a behaviour has had its effect on an order's step."""

    behaviour: Behaviour
    step: Step
    order_id: str | None
    times: int


@dataclass
class Rate:
    """A share of a step's requests; `step` None is any step."""

    behaviour: Behaviour
    step: Step | None
    share: float
    dice: random.Random


@dataclass
class Personality:
    """Behaves, until it is told otherwise."""

    scripts: dict[tuple[str | None, Step], deque[Behaviour]] = field(
        default_factory=lambda: defaultdict(deque)
    )
    """By order and step, None for any order; each is used up one request at a time."""
    rates: list[Rate] = field(default_factory=list)
    outage: Behaviour | None = None
    outage_until: float = 0.0
    """On this process's monotonic clock."""
    effects: Counter[tuple[Behaviour, Step, str | None]] = field(default_factory=Counter)

    def script(self, behaviour: Behaviour, step: Step, order_id: str | None, times: int) -> None:
        """The next requests of this step misbehave so, after those told before."""
        self.scripts[order_id, step].extend([behaviour] * times)

    def rate(self, behaviour: Behaviour, step: Step | None, share: float, seed: int | None) -> None:
        """This share of the step's requests misbehaves so; a seed draws the same again."""
        dice = random.Random(seed)  # noqa: S311  # no secret
        self.rates.append(Rate(behaviour, step, share, dice))

    def begin_outage(self, behaviour: Behaviour, seconds: float) -> None:
        """Every request misbehaves so for this time; 0 seconds end it."""
        self.outage, self.outage_until = behaviour, time.monotonic() + seconds

    def reset(self) -> None:
        """Behaves from now on. What has had its effect stays counted."""
        self.scripts.clear()
        self.rates.clear()
        self.outage = None

    @property
    def misbehaves(self) -> bool:
        """Whether anything is told."""
        return bool(self.scripts or self.rates or self.outage)

    def choose(self, step: Step, order_id: str | None, *, works: bool, keyed: bool) -> Behaviour | None:
        """How this request misbehaves, if it does.

        `works` tells whether it will do work, rather than get an answer that was saved; `keyed` whether its
        answer would be saved.
        """

        def possible(behaviour: Behaviour) -> bool:
            return (behaviour not in SAVED or (works and keyed)) and not (
                (behaviour is Behaviour.SLOW and not works)
                or (behaviour is Behaviour.PROCESSING and step is Step.CONFIRM and not works)
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

    def happened(self, behaviour: Behaviour, step: Step, order_id: str | None) -> None:
        """The behaviour has had its effect."""
        self.effects[behaviour, step, order_id] += 1

    def told(self) -> list[Effect]:
        """What has had its effect so far."""
        return [Effect(*effect, times) for effect, times in self.effects.items()]
