"""Lanes: the two directions of a connection, each with its delay and bandwidth."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MAX_QUEUED: Final = 1 << 20
"""Bytes that a slow lane queues before its sender is paused."""


@dataclass(frozen=True)
class Pace:
    """The delay and bandwidth of a lane."""

    delay: float = 0.0
    """Seconds by which every byte is delayed."""
    bytes_per_second: float | None = None
    """None for no limit."""


AT_ONCE: Final = Pace()


class Lane:
    """Forwards bytes in order, at the current pace."""

    def __init__(self, pace: Callable[[], Pace], write: Callable[[bytes], None], end: Callable[[], None]):
        self._pace = pace
        self._write = write
        self._end = end
        self._queue: deque[tuple[float, bytes | None]] = deque()
        self._queued = 0
        self._free_at = 0.0
        self._last_due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_full(self) -> bool:
        """Whether the sender must be paused."""
        return self._queued > MAX_QUEUED

    def push(self, data: bytes) -> bool:
        """Forwards or queues bytes; returns False if they were delayed."""
        pace = self._pace()
        at_once = pace is AT_ONCE and not self._queue
        if at_once:
            self._write(data)
        elif data:
            self._enqueue(pace, data)
        return at_once

    def end(self) -> None:
        """Ends the other side once everything is forwarded."""
        if self._queue:
            self._enqueue(AT_ONCE, None)
        else:
            self._end()

    def drop(self) -> None:
        """Discards the queued bytes."""
        self._queue.clear()
        self._queued = 0
        if self._timer:
            self._timer.cancel()

    def _enqueue(self, pace: Pace, data: bytes | None) -> None:
        loop = asyncio.get_running_loop()
        self._free_at = max(self._free_at, loop.time())
        if data and pace.bytes_per_second:
            self._free_at += len(data) / pace.bytes_per_second
        self._last_due = max(self._last_due, self._free_at + pace.delay)
        self._queue.append((self._last_due, data))
        self._queued += len(data or b"")
        if len(self._queue) == 1:
            self._timer = loop.call_at(self._last_due, self._flush)

    def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        while self._queue and self._queue[0][0] <= loop.time():
            _, data = self._queue.popleft()
            self._queued -= len(data or b"")
            if data is None:
                self._end()
            else:
                self._write(data)
        if self._queue:
            self._timer = loop.call_at(self._queue[0][0], self._flush)
