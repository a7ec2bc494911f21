"""Group commit: concurrent callers share one commit."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class GroupCommit(Generic[T, R]):
    """Commits the items of concurrent callers together.

    While one commit is in flight, new items gather; when it ends, at most `limit` of them are committed
    together. There is no timer: a single caller commits at once. Each caller gets its own result or error.
    Cancelling a caller removes its item, unless its commit has begun: then only the wait ends.

    The number of waiting callers is not bounded here.
    """

    def __init__(self, commit: Callable[[Sequence[T]], Awaitable[Sequence[R]]], *, limit: int = 200) -> None:
        self._commit = commit
        self._limit = limit
        self._gathered: dict[asyncio.Future[R], T] = {}
        self._committing: asyncio.Task[None] | None = None

    async def submit(self, item: T) -> R:
        """Returns the result for this item after its commit. Raises what `commit` raised."""
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._gathered[answer] = item
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_gathered(), name="group commit")
        try:
            return await answer
        finally:
            self._gathered.pop(answer, None)

    async def drain(self) -> None:
        """Returns when every submitted item has its result."""
        if self._committing:
            await asyncio.shield(self._committing)

    async def _commit_gathered(self) -> None:
        try:
            while self._gathered:
                batch = dict(islice(self._gathered.items(), self._limit))
                for answer in batch:
                    del self._gathered[answer]
                try:
                    results = await self._commit(list(batch.values()))
                except Exception as error:  # noqa: BLE001  # each caller gets it
                    for answer in batch:
                        if not answer.done():
                            answer.set_exception(error)
                else:
                    for answer, result in zip(batch, results, strict=True):
                        if not answer.done():
                            answer.set_result(result)
        finally:
            self._committing = None
