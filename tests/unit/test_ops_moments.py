"""Moments and spans as people write them."""

from datetime import UTC, datetime, timedelta

import pytest

from ops.moments import NotAMoment, NotASpan, moment, span

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


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2",
        "-2h",
        "2y",
        "999999999w",
        "199999w",
        "2026-13-01",
        "0001-01-01T00:00+01:00",
        "٢h",
    ],
)
def test_other_text_is_refused_with_the_right_forms(text: str) -> None:
    with pytest.raises(NotAMoment, match="such as 2026-11-24T09:30Z, or how long ago it was: 90s, 30m, 2h"):
        moment(text, NOW)


@pytest.mark.parametrize(("text", "means"), [("90s", 90), ("30m", 1800), ("2h", 7200), (" 1w ", 604_800)])
def test_a_span_is_a_number_and_a_unit(text: str, means: int) -> None:
    assert span(text) == timedelta(seconds=means)


@pytest.mark.parametrize(
    "text", ["", "30", "soon", "-2h", "2026-11-24", "2030-01-01", "999999999w", "1.5h", "٢h"]
)
def test_other_text_is_no_span_and_refused_with_the_right_forms(text: str) -> None:
    with pytest.raises(NotASpan, match="a number and its unit: 90s, 30m, 2h, 7d or 1w"):
        span(text)
