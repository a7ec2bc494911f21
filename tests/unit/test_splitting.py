"""An item that fails is found by halving; a batch that never commits is no absent database."""

from collections.abc import Sequence

import pytest

from events.errors import DatabaseUnavailable, Unavailable
from events.splitting import MAX_FAILURES, BatchFailures, NeverCommits, commit_in_halves

BAD = 5


class Database:
    """Commits every number but BAD, and answers pings while it is available."""

    def __init__(self, refusal: Exception) -> None:
        self.refusal = refusal
        self.there = True
        self.committed: list[int] = []
        self.refused: dict[int, Exception] = {}
        self.tries = 0

    async def commit(self, items: Sequence[int]) -> Sequence[int]:
        self.tries += 1
        if BAD in items:
            raise self.refusal
        self.committed += items
        return items

    async def refuse(self, item: int, error: Exception) -> int:
        self.refused[item] = error
        return -item

    async def ping(self) -> bool:
        return self.there


async def tried(database: Database, suspicion: BatchFailures) -> list[int] | None:
    """The results of 8 items; None if they have to be tried again."""
    try:
        return await commit_in_halves(range(8), database.commit, database.refuse, suspicion.blames_batch)
    except Unavailable:
        return None


async def test_a_defect_is_found_by_halving_and_its_neighbours_commit() -> None:
    database = Database(ValueError("bad"))
    assert await tried(database, BatchFailures(database.ping)) == [0, 1, 2, 3, 4, -BAD, 6, 7]
    assert database.refused == {BAD: database.refusal}
    assert sorted(database.committed) == [0, 1, 2, 3, 4, 6, 7]


async def test_a_batch_that_fails_three_times_while_the_database_answers_is_split() -> None:
    database = Database(DatabaseUnavailable("deadlock"))
    suspicion = BatchFailures(database.ping)
    for _ in range(MAX_FAILURES - 1):
        assert await tried(database, suspicion) is None
    assert database.committed == []
    assert await tried(database, suspicion) == [0, 1, 2, 3, 4, -BAD, 6, 7]
    [(refused, why)] = database.refused.items()
    assert refused == BAD
    assert isinstance(why, NeverCommits)
    assert "deadlock" in str(why)
    assert why.__cause__ is database.refusal


async def test_a_database_that_is_away_is_waited_for_without_end_and_forgets_earlier_failures() -> None:
    database = Database(DatabaseUnavailable())
    suspicion = BatchFailures(database.ping)
    assert await tried(database, suspicion) is None
    assert await tried(database, suspicion) is None
    database.there = False
    for _ in range(20):
        assert await tried(database, suspicion) is None
    database.there = True
    assert await tried(database, suspicion) is None
    assert await tried(database, suspicion) is None
    assert await tried(database, suspicion) is not None


async def test_a_server_that_says_it_is_full_is_away_whatever_it_answers() -> None:
    database = Database(DatabaseUnavailable("disk full", server_wide=True))
    suspicion = BatchFailures(database.ping)
    for _ in range(20):
        assert await tried(database, suspicion) is None
    assert database.tries == 20
    assert database.refused == {}


async def test_without_a_suspicion_unavailable_is_raised() -> None:
    database = Database(Unavailable())
    for _ in range(MAX_FAILURES):
        with pytest.raises(Unavailable):
            await commit_in_halves(range(8), database.commit, database.refuse)
