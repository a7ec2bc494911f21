"""Times and durations on the command line: `2026-11-24T09:30Z`, or `2h`."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION: Final = re.compile(r"([0-9]{1,9})([smhdw])")


class InvalidTime(ValueError):
    """Write a time such as 2026-11-24T09:30Z, or how long ago it was: 90s, 30m, 2h, 7d or 1w."""


class InvalidDuration(ValueError):
    """Write a number and its unit: 90s, 30m, 2h, 7d or 1w."""


def parse_duration(text: str) -> timedelta:
    """Reads a duration such as `30m`. Raises InvalidDuration."""
    written = _DURATION.fullmatch(text.strip())
    if written is None:
        raise InvalidDuration(InvalidDuration.__doc__)
    try:
        return timedelta(**{_UNITS[written[2]]: int(written[1])})
    except OverflowError as error:
        raise InvalidDuration(InvalidDuration.__doc__) from error


def parse_time(text: str, now: datetime) -> datetime:
    """Reads a time, in UTC if it names no zone, or a duration such as `2h`: that long before `now`.

    Returns it in UTC. Raises InvalidTime.
    """
    try:
        if _DURATION.fullmatch(text.strip()):
            return now - parse_duration(text)
        at = datetime.fromisoformat(text.strip())
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidTime(InvalidTime.__doc__) from error
