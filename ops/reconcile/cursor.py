"""A cursor over a table with UUIDv7 keys, chunk by chunk, starting over at the end."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from events.partitions import first_id

_BEGINNING: Final = UUID(int=0)


class Cursor:
    """Reads from the beginning or, with a `window`, from that long before now, up to the end.

    It starts over at the end, because a row may become visible after others with greater ids.
    """

    def __init__(self, window: timedelta | None = None) -> None:
        self._window = window
        self.after = self._start()

    def advance(self, chunk: Sequence[UUID], limit: int) -> bool:
        """Moves behind a chunk that was read with this limit. Returns whether it was the last one."""
        ended = len(chunk) < limit
        self.after = self._start() if ended else chunk[-1]
        return ended

    def _start(self) -> UUID:
        return first_id(datetime.now(UTC) - self._window) if self._window else _BEGINNING
