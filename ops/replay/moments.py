"""Moments as people write them: `2026-11-24T09:30:00Z`, or how long ago: `2h`."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str, now: datetime) -> datetime:
    """The moment in UTC; a time without a zone is UTC. Raises ValueError for anything else."""
    if ago := re.fullmatch(r"(\d{1,9})([smhdw])", text.strip()):
        try:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        except OverflowError as error:
            raise ValueError(f"{text} is before all time") from error
    at = datetime.fromisoformat(text.strip())
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
