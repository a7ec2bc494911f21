"""An event loop whose time passes only when it is told to, and that says when there is nothing left to do."""

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
"""Real seconds that the one thing that is being done may take."""


class _Selector(selectors.BaseSelector):
    """Waits for real input only while something real is being done; else asks what is next."""

    def __init__(self) -> None:
        self._real = selectors.DefaultSelector()
        self.working = 0
        self.at_rest: Callable[[], None] = lambda: None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return self._real.select(0)
        if not self.working:
            self.at_rest()
            return self._real.select(0)
        ready = self._real.select(PATIENCE)
        if not ready:
            raise TimeoutError(
                f"What is being done has not ended after {PATIENCE:.0f} s: it waits for itself."
            )
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
    """Timers fire in `let_pass` alone. Whoever uses real sockets does so inside of `working`.

    Timers that are set meanwhile, by the database's driver, never fire.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle, Callable[[], None]]] = []
        self._numbers = count()
        self._ours = _Selector()
        super().__init__(self._ours)

    def time(self) -> float:
        """Virtual seconds since `rewind`."""
        return self._now

    def rewind(self, at_rest: Callable[[], None]) -> None:
        """Begins again at 0, without timers. From now on `at_rest` is called when nobody can go on."""
        self._now = 0.0
        self._timers.clear()
        self._ours.at_rest = at_rest

    @contextmanager
    def working(self) -> Iterator[None]:
        """While this lasts the loop is not at rest: it waits for real input."""
        self._ours.working += 1
        try:
            yield
        finally:
            self._ours.working -= 1

    @property
    def next_timer(self) -> float | None:
        """When the first timer is due."""
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def let_pass(self, seconds: float) -> None:
        """Time passes, at once: every timer that falls due in it fires at its end."""
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
                handle._run()  # as the loop itself does

        if not self._ours.working:  # else it is a driver's own, about real time
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
        """The loop's own count of its timers, which are not kept there."""
