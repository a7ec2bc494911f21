"""Moments as people write them."""

from datetime import UTC, datetime

import pytest

from ops.replay.moments import moment

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("90s", datetime(2026, 11, 24, 11, 58, 30, tzinfo=UTC)),
        ("2h", datetime(2026, 11, 24, 10, 0, tzinfo=UTC)),
        ("1w", datetime(2026, 11, 17, 12, 0, tzinfo=UTC)),
        ("2026-11-24", datetime(2026, 11, 24, tzinfo=UTC)),
        ("2026-11-24T09:30Z", datetime(2026, 11, 24, 9, 30, tzinfo=UTC)),
        ("2026-11-24T09:30", datetime(2026, 11, 24, 9, 30, tzinfo=UTC)),
        (" 2026-11-24T09:30:00-03:00 ", datetime(2026, 11, 24, 12, 30, tzinfo=UTC)),
    ],
)
def test_a_moment_is_a_time_or_how_long_ago(text: str, means: datetime) -> None:
    assert moment(text, NOW) == means


@pytest.mark.parametrize("text", ["", "yesterday", "2", "-2h", "2y", "999999999w", "2026-13-01"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        moment(text, NOW)
