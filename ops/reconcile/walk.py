"""Walks: going through a table by its ids, a chunk at a time, over and over."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from events.partitions import first_id

_BEGINNING: Final = UUID(int=0)


class Walk:
    """A place in a table whose ids are UUIDv7, from the beginning or from a `window` before now, to its end.

    It starts over at the end, because a row may become visible after others with greater ids.
    """

    def __init__(self, window: timedelta | None = None) -> None:
        self._window = window
        self.after = self._start()

    def move(self, chunk: Sequence[UUID], limit: int) -> bool:
        """Goes behind a chunk, and says whether that was the end."""
        ended = len(chunk) < limit
        self.after = self._start() if ended else chunk[-1]
        return ended

    def _start(self) -> UUID:
        return first_id(datetime.now(UTC) - self._window) if self._window else _BEGINNING
