"""Where schedules run: a database, and the loop in which time stands still."""

from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager

from tests.conftest import new_database
from tests.simulation.database import SimulatedDatabase, simulated_database
from tests.simulation.fates import Fate
from tests.simulation.loop import VirtualLoop
from tests.simulation.schedule import Outcome, run


class House:
    """Runs one schedule after the other."""

    def __init__(self, loop: VirtualLoop, database: SimulatedDatabase) -> None:
        self._loop = loop
        self._database = database

    def run(self, seed: int, fates: Sequence[Fate] = ()) -> Outcome:
        """The schedule of this seed; with `fates` in a storm in which just these are frequent."""
        return self._loop.run_until_complete(run(seed, self._database, self._loop, fates))


@contextmanager
def house(postgres: str) -> Iterator[House]:
    """A house on a database of its own on this server, which is dropped at the end."""
    loop = VirtualLoop()
    stack = AsyncExitStack()

    async def enter() -> SimulatedDatabase:
        url = await stack.enter_async_context(new_database(postgres))
        return await stack.enter_async_context(simulated_database(url))

    try:
        with loop.working():
            database = loop.run_until_complete(enter())
        yield House(loop, database)
    finally:
        with loop.working():
            loop.run_until_complete(stack.aclose())
        loop.close()
