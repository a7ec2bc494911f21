"""The simulator: a database and a loop with virtual time, in which schedules run."""

from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager

from tests.conftest import new_database
from tests.simulation.database import SimulatedDatabase, simulated_database
from tests.simulation.endings import Ending
from tests.simulation.loop import VirtualLoop
from tests.simulation.schedule import Outcome, run


class Simulator:
    """Runs schedules, one at a time."""

    def __init__(self, loop: VirtualLoop, database: SimulatedDatabase) -> None:
        self._loop = loop
        self._database = database

    def run(self, seed: int, endings: Sequence[Ending] = ()) -> Outcome:
        """Runs the schedule of this seed; with `endings`, only these endings fail steps, and often."""
        return self._loop.run_until_complete(run(seed, self._database, self._loop, endings))


@contextmanager
def simulator(postgres: str) -> Iterator[Simulator]:
    """A simulator with its own database on this server, which is dropped at the end."""
    loop = VirtualLoop()
    stack = AsyncExitStack()

    async def enter() -> SimulatedDatabase:
        url = await stack.enter_async_context(new_database(postgres))
        return await stack.enter_async_context(simulated_database(url))

    try:
        with loop.real_io():
            database = loop.run_until_complete(enter())
        yield Simulator(loop, database)
    finally:
        with loop.real_io():
            loop.run_until_complete(stack.aclose())
        loop.close()
