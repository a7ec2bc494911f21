"""Group commit: concurrent callers share one commit."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class GroupCommit(Generic[T, R]):
    """Joins concurrent callers into the commit that is about to happen.

    While one commit is in flight the next items gather (at most `limit` go in together), and go in when it
    ends: no timer, so a lone caller never waits for company. Each caller gets its own result or error. A
    caller that is cancelled takes its item out, unless its commit has begun: then only its wait ends.

    It holds one item for each caller that waits; bounding those is up to the caller's side.
    """

    def __init__(self, commit: Callable[[Sequence[T]], Awaitable[Sequence[R]]], *, limit: int = 200) -> None:
        self._commit = commit
        self._limit = limit
        self._gathered: dict[asyncio.Future[R], T] = {}
        self._committing: asyncio.Task[None] | None = None

    async def submit(self, item: T) -> R:
        """The result for this item, after its commit. Raises what `commit` raised."""
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._gathered[answer] = item
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_gathered(), name="group commit")
        try:
            return await answer
        finally:
            self._gathered.pop(answer, None)

    async def drain(self) -> None:
        """Returns when everything that was submitted has its answer."""
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
