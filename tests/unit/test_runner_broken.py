"""Runners that are wrong on purpose: the real one but for one mistake, found by the test named for it.

These are mistakes of time and bounds, which only a clock of its own shows. The simulation has the others
(`tests.simulation.broken`).
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final
from unittest.mock import patch
from uuid import uuid4

import pytest

from events import outage, performing, settling
from events.claims import RENEW_SECONDS, Claims, Held
from events.errors import Postponed, Unavailable
from events.leases import Lease
from events.outage import Outage
from events.performing import Performing
from events.retry import Failure, RetryPolicy, Tries
from events.splitting import BatchFailures
from tests.unit import test_runner as promises

Mistake = Callable[[], AbstractContextManager[object]]


def a_refusal_taken_for_an_outage() -> AbstractContextManager[object]:
    """The other side does not take one row, and the runner believes that it is away."""
    return patch.object(performing, "Unavailable", (Unavailable, Postponed))


def an_outage_counted_against_the_row() -> AbstractContextManager[object]:
    """The row that met the outage has a defect."""
    defer = Performing._defer

    def count(self: Any, held: Any, failure: Failure, error: str, at_least: float = 0.0) -> None:
        defer(self, held, "defect" if failure == "outage" else failure, error, at_least)

    return patch.object(Performing, "_defer", count)


def an_outage_that_no_answer_ends() -> AbstractContextManager[object]:
    """The runner goes on probing although it is answered."""
    return patch.object(Outage, "answered", lambda _: False)


def an_outage_after_one_missing_answer() -> AbstractContextManager[object]:
    """One row that gets no answer stops all."""
    return patch.object(outage, "SUBJECTS", 1)


def rows_counted_for_subjects() -> AbstractContextManager[object]:
    """Five mails to one recipient are an outage."""
    unanswered = Outage.unanswered

    def count(self: Outage, _: str, now: float) -> bool:
        return unanswered(self, str(uuid4()), now)

    return patch.object(Outage, "unanswered", count)


def the_same_probe_again_and_again() -> AbstractContextManager[object]:
    """The row that failed goes first at every probe."""
    return patch.object(Outage, "may_probe", lambda *_: True)


def claims_never_renewed() -> AbstractContextManager[object]:
    """Work that takes longer than its claim is begun a second time."""

    async def wait(self: Claims[Any], _: object) -> None:
        self.next_renewal = outage.now() + RENEW_SECONDS

    return patch.object(Claims, "renew_if_due", wait)


def claims_that_hold_for_ever() -> AbstractContextManager[object]:
    """Work begins on a claim that ran out long ago."""

    def hold(self: Claims[Any], leases: Sequence[Lease[Any]], _: float) -> list[Held[Any]]:
        held = [Held(lease, math.inf) for lease in leases if lease.row.id not in self.held]
        self.held.update(each.row.id for each in held)
        return held

    return patch.object(Claims, "hold", hold)


def memory_over_its_bound() -> AbstractContextManager[object]:
    """The runner makes room for three times of what it may hold."""
    return patch.object(Claims, "room", property(lambda self: max(0, 3 * self.memory - len(self.held))))


def memory_filled_by_new_rows() -> AbstractContextManager[object]:
    """No room is kept for rows that wait in the table."""
    return patch.object(Claims, "room", property(lambda self: max(0, self.memory - len(self.held))))


def the_latest_first() -> AbstractContextManager[object]:
    """The row that waited longest goes last."""
    return patch.object(Performing, "_take_next", lambda self: self.claims.waiting.pop())


def slow_rows_among_the_others() -> AbstractContextManager[object]:
    """Slow rows take ordinary places."""
    return patch.object(Performing, "ordinary", property(lambda self: len(self.tasks)))


def unknown_outcomes_without_an_end() -> AbstractContextManager[object]:
    """A server that never answers gets a copy at each try."""
    verdict = RetryPolicy.verdict

    def never(self: RetryPolicy, failure: Failure, tries: Tries) -> str | None:
        return None if failure == "unknown" else verdict(self, failure, tries)

    return patch.object(RetryPolicy, "verdict", never)


def no_batch_to_blame() -> AbstractContextManager[object]:
    """The database is thought to be away whenever a batch can't commit."""

    class Trusting(BatchFailures):
        async def blames_batch(self, _: Unavailable) -> bool:
            return False

    return patch.object(settling, "BatchFailures", Trusting)


VARIANTS: Final = (
    (a_refusal_taken_for_an_outage, promises.test_one_row_that_is_postponed_for_ever_stops_nobody_else),
    (
        an_outage_counted_against_the_row,
        promises.test_the_other_side_saying_that_it_is_away_pauses_all_and_counts_against_nobody,
    ),
    (
        an_outage_that_no_answer_ends,
        promises.test_a_refusal_of_one_row_ends_an_outage_as_any_other_answer_does,
    ),
    (
        an_outage_after_one_missing_answer,
        promises.test_five_different_subjects_without_an_answer_are_an_outage,
    ),
    (rows_counted_for_subjects, promises.test_five_different_subjects_without_an_answer_are_an_outage),
    (
        the_same_probe_again_and_again,
        promises.test_each_probe_is_about_another_subject_and_what_waited_longest_goes_first,
    ),
    (claims_never_renewed, promises.test_slow_rows_have_a_lane_of_their_own),
    (
        claims_that_hold_for_ever,
        promises.test_a_claim_that_can_not_be_renewed_is_left_to_the_next_who_claims,
    ),
    (memory_over_its_bound, promises.test_a_slow_other_side_holds_work_back_and_starves_nobody),
    (
        memory_filled_by_new_rows,
        promises.test_what_fell_due_again_goes_before_what_is_new_however_much_is_made,
    ),
    (the_latest_first, promises.test_a_slow_other_side_holds_work_back_and_starves_nobody),
    (slow_rows_among_the_others, promises.test_slow_rows_have_a_lane_of_their_own),
    (unknown_outcomes_without_an_end, promises.test_a_row_is_given_up_by_its_policy),
    (no_batch_to_blame, promises.test_an_outcome_that_never_commits_holds_up_no_other),
)


@pytest.mark.parametrize(("mistake", "promise"), VARIANTS, ids=[mistake.__name__ for mistake, _ in VARIANTS])
def test_a_mistake_breaks_the_promise_named_for_it(mistake: Mistake, promise: Callable[[], None]) -> None:
    """By an assertion of that test: a runner that dies of its mistake has shown nothing."""
    with mistake(), pytest.raises(AssertionError):
        promise()
