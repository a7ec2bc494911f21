"""When a mail is tried again, and when it is given up."""

from datetime import timedelta

import pytest

from events.retry import Tries
from services.email.work import MAIL_RETRIES

DAYS = timedelta(days=1)


def test_a_mail_is_tried_again_after_minutes_and_then_after_hours() -> None:
    """RFC 5321, 4.5.4.1. Jitter takes up to half of a pause away."""
    pauses = [MAIL_RETRIES.pause(Tries(attempts)) / 60 for attempts in range(8)]
    longest = [5, 10, 20, 40, 80, 120, 120, 120]
    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, longest, strict=True))


@pytest.mark.parametrize(("waited", "state"), [(4 * DAYS, None), (6 * DAYS, "refused")])
def test_a_mail_is_postponed_for_five_days_and_no_longer(waited: timedelta, state: str | None) -> None:
    assert MAIL_RETRIES.verdict("postponed", Tries(attempts=60, unknowns=2, waited=waited)) == state


def test_a_mail_is_perhaps_sent_three_times_and_no_more() -> None:
    assert MAIL_RETRIES.verdict("unknown", Tries(attempts=30, unknowns=1)) is None
    assert MAIL_RETRIES.verdict("unknown", Tries(attempts=2, unknowns=2)) == "dead"


def test_an_outage_counts_against_no_mail() -> None:
    assert MAIL_RETRIES.verdict("outage", Tries(attempts=60, unknowns=2, waited=30 * DAYS)) is None
