"""Stopping: how a process is asked to end, and how it cancels what it waits for."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager


class Stopped(Exception):
    """The wait was cancelled because something else happened first."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


def stop_on_signals() -> asyncio.Event:
    """An event that the first SIGTERM, SIGINT or SIGHUP sets. The next signal ends the process at once.

    A signal that was ignored at the start of the process stays ignored (nohup).
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = [
        number
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    ]

    def first() -> None:
        stop.set()
        for each in signals:
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)

    for each in signals:
        loop.add_signal_handler(each, first)
    return stop


@asynccontextmanager
async def cancel_when(happens: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Cancels the block when `happens` returns; then the block raises Stopped."""
    limit = asyncio.timeout(None)

    async def watch() -> None:
        await happens()
        limit.reschedule(0)

    watching = asyncio.create_task(watch())
    try:
        async with limit:
            yield
    except Exception as consequence:
        if limit.expired():
            raise Stopped from consequence
        raise
    finally:
        watching.cancel()
    if limit.expired():  # the block ended in spite of the cancellation
        raise Stopped
