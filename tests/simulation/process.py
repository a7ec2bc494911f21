"""A process: one service's participant, which can die at any time without cleaning up."""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

T = TypeVar("T")

_CURRENT: ContextVar["Process | None"] = ContextVar("process", default=None)


def current() -> "Process | None":
    """The process of the running task; None if it belongs to none."""
    return _CURRENT.get()


def task_factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> "asyncio.Task[Any]":
    """Makes a task that belongs to the process that makes it."""
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
    context = options.get("context")
    process = context.get(_CURRENT) if context is not None else current()
    if process is not None:
        process.tasks.append(task)
    return task


class Process:
    """A simulated process. Once it is dead, none of its tasks can begin a step, not even while cancelled."""

    def __init__(self, name: str, died: Callable[["Process"], None]) -> None:
        self.name = name
        self.dead = False
        self.tasks: list[asyncio.Task[Any]] = []
        self._died = died
        self._context = copy_context()
        self._context.run(_CURRENT.set, self)

    def run(self, coroutine: Coroutine[Any, Any, T], name: str) -> "asyncio.Task[T]":
        """Starts a task in this process."""
        return asyncio.get_running_loop().create_task(coroutine, name=name, context=self._context)

    def kill(self) -> None:
        """Cancels all its tasks but the running one, which must end by itself."""
        self.dead = True
        try:
            running = asyncio.current_task()
        except RuntimeError:  # between two tasks
            running = None
        for task in self.tasks:
            if task is not running:
                task.cancel()
        self._died(self)

    async def wait_until_ended(self) -> None:
        """Waits until every task of the dead process has ended."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
