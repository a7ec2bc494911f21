"""An event loop with virtual time, which reports when no task can continue."""

import asyncio
import heapq
import selectors
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import Context
from itertools import count
from typing import Any, Final, TypeVarTuple

Ts = TypeVarTuple("Ts")

PATIENCE: Final = 60.0
"""Most real seconds of one step."""


class _Selector(selectors.BaseSelector):
    """Waits for input only inside of `real_io`; otherwise it calls `on_idle` at once."""

    def __init__(self) -> None:
        self._real = selectors.DefaultSelector()
        self.real_io = 0
        self.on_idle: Callable[[], None] = lambda: None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return self._real.select(0)
        if not self.real_io:
            self.on_idle()
            return self._real.select(0)
        ready = self._real.select(PATIENCE)
        if not ready:
            raise TimeoutError(f"The step did not end within {PATIENCE:.0f} s: it is deadlocked.")
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


class VirtualLoop(asyncio.SelectorEventLoop):
    """Timers fire only in `advance`. Code that uses real sockets must run inside of `real_io`.

    Timers that are set there, by the database's driver, never fire.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle, Callable[[], None]]] = []
        self._numbers = count()
        self._virtual_selector = _Selector()
        super().__init__(self._virtual_selector)

    def time(self) -> float:
        """Virtual seconds since `reset`."""
        return self._now

    def reset(self, on_idle: Callable[[], None]) -> None:
        """Starts again at 0, without timers. From now on `on_idle` is called when no task can continue."""
        self._now = 0.0
        self._timers.clear()
        self._virtual_selector.on_idle = on_idle

    @contextmanager
    def real_io(self) -> Iterator[None]:
        """Inside of this context the loop waits for real input."""
        self._virtual_selector.real_io += 1
        try:
            yield
        finally:
            self._virtual_selector.real_io -= 1

    @property
    def next_timer(self) -> float | None:
        """The time at which the next timer is due; None if there is none."""
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def advance(self, seconds: float) -> None:
        """Advances the time; all timers that become due fire at the new time."""
        self._now += seconds
        while (due := self.next_timer) is not None and due <= self._now:
            fire = heapq.heappop(self._timers)[3]
            self.call_soon(fire)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)

        def fire() -> None:
            if not handle.cancelled():
                handle._run()  # as asyncio's loop does

        if not self._virtual_selector.real_io:  # otherwise it is the driver's, for real time
            heapq.heappush(self._timers, (when, next(self._numbers), handle, fire))
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """asyncio's count of cancelled timers, which this loop does not need."""
