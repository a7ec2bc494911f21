"""Moments and spans as people write them: `2026-11-24T09:30Z`, or `2h`."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SPAN: Final = re.compile(r"([0-9]{1,9})([smhdw])")


class NotAMoment(ValueError):
    """Write a time such as 2026-11-24T09:30Z, or how long ago it was: 90s, 30m, 2h, 7d or 1w."""


class NotASpan(ValueError):
    """Write a number and its unit: 90s, 30m, 2h, 7d or 1w."""


def span(text: str) -> timedelta:
    """A span of time, such as `30m`. Raises NotASpan."""
    written = _SPAN.fullmatch(text.strip())
    if written is None:
        raise NotASpan(NotASpan.__doc__)
    try:
        return timedelta(**{_UNITS[written[2]]: int(written[1])})
    except OverflowError as error:
        raise NotASpan(NotASpan.__doc__) from error


def moment(text: str, now: datetime) -> datetime:
    """The moment in UTC; a time without a zone is UTC, and `2h` is that long before `now`.

    Raises NotAMoment.
    """
    try:
        if _SPAN.fullmatch(text.strip()):
            return now - span(text)
        at = datetime.fromisoformat(text.strip())
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise NotAMoment(NotAMoment.__doc__) from error
