"""Moments and spans as people write them."""

from datetime import UTC, datetime, timedelta

import pytest

from ops.times import InvalidDuration, InvalidTime, parse_duration, parse_time

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
def test_a_time_is_absolute_or_so_long_ago(text: str, means: datetime) -> None:
    assert parse_time(text, NOW) == means


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
def test_an_invalid_time_is_refused_and_the_forms_are_named(text: str) -> None:
    with pytest.raises(InvalidTime, match="such as 2026-11-24T09:30Z, or how long ago it was: 90s, 30m, 2h"):
        parse_time(text, NOW)


@pytest.mark.parametrize(("text", "means"), [("90s", 90), ("30m", 1800), ("2h", 7200), (" 1w ", 604_800)])
def test_a_duration_is_a_number_and_a_unit(text: str, means: int) -> None:
    assert parse_duration(text) == timedelta(seconds=means)


@pytest.mark.parametrize(
    "text", ["", "30", "soon", "-2h", "2026-11-24", "2030-01-01", "999999999w", "1.5h", "٢h"]
)
def test_an_invalid_duration_is_refused_and_the_forms_are_named(text: str) -> None:
    with pytest.raises(InvalidDuration, match="a number and its unit: 90s, 30m, 2h, 7d or 1w"):
        parse_duration(text)
