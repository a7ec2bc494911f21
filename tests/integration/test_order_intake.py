"""The intake accepts many orders at once, each once, and none by halves, whatever the database does."""

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256

import asyncpg
import httpx
import pytest
from sqlalchemy.engine import make_url

from chassis import database
from events.errors import DatabaseUnavailable
from events.transaction import Transaction
from events.transactions import Transactions
from services.order import intake as intake_module
from services.order import repository
from services.order.intake import Accepted, IdempotencyKey, Intake, IntakeFull, KeyReused, StillRunning
from tests.factories import a_placed, an_order, one_of_each
from tests.order_service import OrderService, a_new_item, a_new_order, order_service


@pytest.fixture
async def url(service_url: Callable[[str], Awaitable[str]]) -> str:
    return await service_url("order")


@pytest.fixture
async def service(url: str) -> AsyncIterator[OrderService]:
    async with order_service(url) as service:
        yield service


@asynccontextmanager
async def owner(fresh_database: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A connection that may end others."""
    plain = make_url(fresh_database).set(drivername="postgresql").render_as_string(hide_password=False)
    connection = await asyncpg.connect(plain)
    try:
        yield connection
    finally:
        await connection.close()


async def post(service: OrderService, key: str | None = None, **changes: object) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return await service.http.post("/orders", json=a_new_order(**changes), headers=headers)


def new_key() -> str:
    return uuid.uuid4().hex


async def test_two_hundred_orders_at_once_are_all_accepted_and_announced(service: OrderService) -> None:
    answers = await asyncio.gather(*(post(service, reference=f"WEB-{n}") for n in range(200)))
    assert Counter(answer.status_code for answer in answers) == {201: 200}
    assert {answer.json()["reference"] for answer in answers} == {f"WEB-{n}" for n in range(200)}
    assert await service.written() == {"orders": 200, "lines": 200, "keys": 0, "announced": 200}
    for answer in answers[:5]:
        assert await service.read(answer.json()["id"]) == answer.json()


async def test_concurrent_orders_share_commits(service: OrderService) -> None:
    await asyncio.gather(*(post(service) for _ in range(100)))
    async with service.transactions() as tx:
        [record] = await tx.fetch("SELECT count(DISTINCT xmin::text) AS commits FROM orders")
    assert record["commits"] < 50


# Idempotency keys


async def test_an_order_carries_the_hash_of_its_key_and_never_the_key(service: OrderService) -> None:
    key = new_key()
    await post(service, key)
    await post(service)
    async with service.transactions() as tx:
        bodies = [bytes(row["body"]) for row in await tx.fetch("SELECT body FROM outbox ORDER BY id")]
        snapshots = [
            bytes(row["snapshot"]) for row in await tx.fetch("SELECT snapshot FROM orders ORDER BY id")
        ]
    for with_key, without in (bodies, snapshots):
        assert sha256(key.encode()).hexdigest().encode() in with_key
        assert key.encode() not in with_key
        assert b"key_hash" not in without


async def test_a_hundred_requests_with_one_key_make_one_order(service: OrderService) -> None:
    key = new_key()
    answers = await asyncio.gather(*(post(service, key) for _ in range(100)))
    assert Counter(answer.status_code for answer in answers) == {201: 100}
    assert len({answer.content for answer in answers}) == 1
    assert len({answer.headers["location"] for answer in answers}) == 1
    replayed = Counter(answer.headers.get("idempotency-replayed") for answer in answers)
    assert replayed == {None: 1, "true": 99}
    assert await service.written() == {"orders": 1, "lines": 1, "keys": 1, "announced": 1}


async def test_a_replay_gives_the_answer_given_at_creation_whatever_has_happened_since(
    service: OrderService,
) -> None:
    key = new_key()
    first = await post(service, key)
    order = an_order(id=uuid.UUID(first.json()["id"]))
    await service.publish(*(one_of_each(order)[each] for each in ("INVOICE_CREATED", "SHIPPED")))
    assert (await service.read(str(order.id)))["status"] == "SHIPPED"
    again = await post(service, key)
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["content-type"] == first.headers["content-type"]
    assert (first.headers.get("idempotency-replayed"), again.headers["idempotency-replayed"]) == (
        None,
        "true",
    )


async def test_a_replay_does_not_depend_on_how_the_json_was_written(service: OrderService) -> None:
    key, order = new_key(), a_new_order(items=[a_new_item(tax_rate="0")])
    first = await service.http.post("/orders", json=order, headers={"Idempotency-Key": key})
    del order["items"][0]["tax_rate"]
    order["shipping_address"] |= {"state": None}
    shuffled = dict(reversed(order.items()))
    again = await service.http.post("/orders", json=shuffled, headers={"Idempotency-Key": key})
    assert (again.status_code, again.content) == (201, first.content)


async def test_a_key_with_another_order_is_refused(service: OrderService) -> None:
    key = new_key()
    first = await post(service, key)
    other = await post(service, key, reference="WEB-1043")
    assert other.status_code == 422
    assert other.headers["content-type"] == "application/problem+json"
    assert other.json()["type"].endswith("idempotency_key_reused")
    assert (await post(service, key)).content == first.content
    assert (await service.written())["orders"] == 1


async def test_an_order_that_was_refused_leaves_its_key_free(service: OrderService) -> None:
    key = new_key()
    assert (await post(service, key, currency="XXX")).status_code == 422
    assert (await post(service, key)).status_code == 201


async def test_keys_are_kept_apart_by_every_character(service: OrderService) -> None:
    keys = ["a", "A", "a b", '"a"', "k" * 255, "k" * 254 + "l"]
    answers = [await post(service, key) for key in keys]
    assert len({answer.json()["id"] for answer in answers}) == len(keys)


class Gate(Transactions):
    """Transactions that wait until the test opens the gate."""

    def __init__(self, transactions: Transactions) -> None:
        super().__init__(transactions._pool)
        self.reached = asyncio.Event()
        self.open = asyncio.Event()

    @asynccontextmanager
    async def __call__(self, *, optimistic: bool = False) -> AsyncIterator[Transaction]:
        self.reached.set()
        await self.open.wait()
        async with super().__call__(optimistic=optimistic) as tx:
            yield tx


@pytest.fixture
async def transactions(url: str) -> AsyncIterator[Transactions]:
    async with database.connect(url, pool=4, application="test") as pool:
        yield Transactions(pool)


async def counted(transactions: Transactions, table: str) -> int:
    async with transactions() as tx:
        [record] = await tx.fetch(f"SELECT count(*) FROM {table}")
    return int(record["count"])


async def gathered(
    transactions: Transactions, wanted: Sequence[tuple[str | None, bytes]]
) -> list[Accepted | BaseException]:
    """Outcomes of requests (key, fingerprint) that go into one commit together."""
    gate = Gate(transactions)
    intake = Intake(gate)
    first = asyncio.create_task(intake.accept(a_placed()))
    await gate.reached.wait()
    waiting = [
        asyncio.create_task(intake.accept(a_placed(), IdempotencyKey(key, fingerprint) if key else None))
        for key, fingerprint in wanted
    ]
    await asyncio.sleep(0)
    gate.open.set()
    await first
    return await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_key_twice_in_one_batch_makes_one_order(transactions: Transactions) -> None:
    outcomes = await gathered(
        transactions, [("a", b"1"), ("b", b"1"), ("a", b"1"), (None, b""), ("a", b"2"), ("b", b"1")]
    )
    a, b, a_again, without_key, a_other, b_again = outcomes
    assert isinstance(a, Accepted)
    assert isinstance(b, Accepted)
    assert isinstance(a_again, Accepted)
    assert isinstance(b_again, Accepted)
    assert isinstance(without_key, Accepted)
    assert isinstance(a_other, KeyReused)
    assert not (a.replayed or b.replayed or without_key.replayed)
    assert a_again.replayed
    assert b_again.replayed
    assert (a_again.order, a_again.first_entry) == (a.order, a.first_entry)
    assert len({a.order.id, b.order.id, without_key.order.id}) == 3
    assert await counted(transactions, "orders") == 4
    assert await counted(transactions, "idempotency_keys") == 2


async def test_a_cancelled_request_makes_no_order_unless_its_commit_has_begun(
    transactions: Transactions,
) -> None:
    gate = Gate(transactions)
    intake = Intake(gate)
    leaving = asyncio.create_task(intake.accept(a_placed()))
    await gate.reached.wait()
    staying = asyncio.create_task(intake.accept(a_placed()))
    also_leaving = asyncio.create_task(intake.accept(a_placed()))
    await asyncio.sleep(0)
    leaving.cancel()
    also_leaving.cancel()
    gate.open.set()
    assert isinstance(await staying, Accepted)
    await intake.drain()
    assert await counted(transactions, "orders") == 2


async def test_an_order_that_cannot_be_written_does_not_fail_its_neighbours(
    transactions: Transactions,
) -> None:
    intake = Intake(transactions)
    bad = an_order(reference="NUL \x00 is not text to PostgreSQL")
    wanted = [
        intake.accept(a_placed(order)) for order in [an_order(), an_order(), bad, an_order(), an_order()]
    ]
    outcomes = await asyncio.gather(*wanted, return_exceptions=True)
    assert [isinstance(outcome, Accepted) for outcome in outcomes] == [True, True, False, True, True]
    assert await counted(transactions, "orders") == await counted(transactions, "timeline") == 4


# A key that another process is just claiming


async def test_a_key_that_another_process_is_claiming_is_waited_for(transactions: Transactions) -> None:
    intake = Intake(transactions)
    async with transactions() as tx:
        await claim(tx, "a", uuid.uuid4())
        waiting = asyncio.create_task(intake.accept(a_placed(), IdempotencyKey("a", b"1")))
        neighbour = await intake.accept(a_placed(), IdempotencyKey("b", b"1"))
        assert isinstance(neighbour, Accepted)
        assert not waiting.done()
        await tx.execute("DELETE FROM idempotency_keys")
    assert not (await waiting).replayed
    assert await counted(transactions, "orders") == 2


async def claim(tx: Transaction, key: str, order_id: uuid.UUID) -> None:
    assert await repository.claim_keys(tx, [repository.KeyClaim(key, b"1", order_id)]) == {key}


async def test_a_key_that_is_still_being_claimed_at_the_deadline_is_still_running(
    transactions: Transactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "DEADLINE_SECONDS", 0.5)
    intake = Intake(transactions)
    async with transactions() as tx:
        await claim(tx, "a", uuid.uuid4())
        with pytest.raises(StillRunning):
            await intake.accept(a_placed(), IdempotencyKey("a", b"1"))
    assert await counted(transactions, "orders") == 0


async def test_a_key_that_is_still_running_is_a_409(
    service: OrderService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "DEADLINE_SECONDS", 0.5)
    async with service.transactions() as tx:
        await claim(tx, "a", uuid.uuid4())
        answer = await post(service, "a")
    assert (answer.status_code, answer.headers["retry-after"]) == (409, "1")
    assert answer.headers["content-type"] == "application/problem+json"


# The database goes away


async def terminated(connection: "asyncpg.Connection[asyncpg.Record]") -> int:
    """Ends the service's connections. Returns how many there were."""
    return int(
        await connection.fetchval("""
            SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()""")
    )


async def test_every_answer_stays_true_when_connections_break(
    fresh_database: str, service: OrderService
) -> None:
    keys = [new_key() if n % 2 else None for n in range(200)]
    answers: list[httpx.Response] = []
    async with owner(fresh_database) as connection:
        cuts = 0
        for start in range(0, 200, 20):
            posting = [asyncio.create_task(post(service, key)) for key in keys[start : start + 20]]
            while not all(task.done() for task in posting):
                cuts += await terminated(connection)
                await asyncio.wait(posting, timeout=0.05)
            answers += await asyncio.gather(*posting)
        assert cuts > 0
        assert {answer.status_code for answer in answers} <= {201, 503}
        accepted = {answer.json()["id"] for answer in answers if answer.status_code == 201}
        assert accepted

        async def ids(statement: str) -> list[str]:
            return [str(record["id"]) for record in await connection.fetch(statement)]

        orders = await ids('SELECT id FROM "order".orders')
        announced = await ids('SELECT unnest(order_ids) AS id FROM "order".outbox')
        lines = await ids('SELECT order_id AS id FROM "order".timeline')
        assert accepted <= set(orders)
        assert sorted(orders) == sorted(announced) == sorted(lines)
        assert set(await ids('SELECT order_id AS id FROM "order".idempotency_keys')) <= set(orders)
    for key, answer in zip(keys, answers, strict=True):
        if key and answer.status_code == 201:
            assert (await post(service, key)).content == answer.content


class LostAnswer(Transactions):
    """Transactions whose first commit succeeds while its answer is lost."""

    def __init__(self, transactions: Transactions) -> None:
        super().__init__(transactions._pool)
        self._lost = False

    @asynccontextmanager
    async def __call__(self, *, optimistic: bool = False) -> AsyncIterator[Transaction]:
        async with super().__call__(optimistic=optimistic) as tx:
            yield tx
        if not self._lost:
            self._lost = True
            raise DatabaseUnavailable


@pytest.mark.parametrize("key", [None, IdempotencyKey("a", b"1")])
async def test_a_commit_whose_answer_was_lost_is_not_made_twice(
    transactions: Transactions, key: IdempotencyKey | None
) -> None:
    intake = Intake(LostAnswer(transactions))
    accepted = await intake.accept(a_placed(), key)
    assert not accepted.replayed
    assert await counted(transactions, "orders") == 1
    assert await counted(transactions, "timeline") == 1
    assert await counted(transactions, "outbox") == 1


async def test_a_database_that_stays_away_is_a_503_with_retry_after(
    fresh_database: str, service: OrderService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "DEADLINE_SECONDS", 0.5)
    name = make_url(fresh_database).database
    async with owner(fresh_database) as connection:
        await connection.execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT 0')
        await terminated(connection)
        answers = await asyncio.gather(post(service), post(service, "a"))
        for answer in answers:
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert answer.headers["content-type"] == "application/problem+json"
        await connection.execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT -1')
    assert (await post(service, "a")).status_code == 201
    assert (await service.written())["orders"] == 1


async def test_a_request_that_was_given_up_before_its_commit_began_makes_no_order(
    transactions: Transactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "DEADLINE_SECONDS", 0.2)
    gate = Gate(transactions)
    intake = Intake(gate)
    begun = asyncio.create_task(intake.accept(a_placed(), IdempotencyKey("a", b"1")))
    await gate.reached.wait()
    with pytest.raises(DatabaseUnavailable):
        await intake.accept(a_placed())
    with pytest.raises(DatabaseUnavailable):  # no other request with the key is under way
        await begun
    gate.open.set()
    await intake.drain()
    assert await counted(transactions, "orders") == 1


async def test_a_slow_database_is_a_503_also_for_a_request_with_a_key(
    fresh_database: str, service: OrderService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "DEADLINE_SECONDS", 0.5)
    async with owner(fresh_database) as connection, connection.transaction():
        await connection.execute('LOCK TABLE "order".orders')  # a statement that does not come to its end
        answer = await post(service, "a")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert (await post(service, "a")).status_code == 201
    assert (await service.written())["orders"] == 1


class Lost(Gate):
    """Transactions of which the first fails behind the gate, while the server still holds its key."""

    async def hold(self, key: str) -> None:
        async with Transactions(self._pool)() as tx:
            await claim(tx, key, uuid.uuid4())
            await self.reached.wait()
            self.open.set()
            await asyncio.Event().wait()

    @asynccontextmanager
    async def __call__(self, *, optimistic: bool = False) -> AsyncIterator[Transaction]:
        if not self.reached.is_set():
            self.reached.set()
            await self.open.wait()
            raise DatabaseUnavailable
        async with Transactions(self._pool)(optimistic=optimistic) as tx:
            yield tx


async def test_after_an_unknown_outcome_a_claimed_key_is_unavailable_and_not_still_running(
    transactions: Transactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "DEADLINE_SECONDS", 0.5)
    lost = Lost(transactions)
    holding = asyncio.create_task(lost.hold("a"))
    with pytest.raises(DatabaseUnavailable):
        await Intake(lost).accept(a_placed(), IdempotencyKey("a", b"1"))
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)


async def test_requests_without_a_waiting_caller_are_dropped(
    transactions: Transactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "DEADLINE_SECONDS", 0.2)
    gate = Gate(transactions)
    intake = Intake(gate)
    for _ in range(3):
        answers = await asyncio.gather(
            *(intake.accept(a_placed()) for _ in range(300)), return_exceptions=True
        )
        assert all(isinstance(answer, DatabaseUnavailable) for answer in answers)
        assert not intake._group._gathered
    gate.open.set()
    await intake.drain()


async def test_callers_beyond_the_limit_get_a_503_at_once(
    service: OrderService, transactions: Transactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "MAX_WAITING", 5)
    gate = Gate(transactions)
    intake = Intake(gate)
    waiting = [asyncio.create_task(intake.accept(a_placed())) for _ in range(5)]
    await gate.reached.wait()
    for _ in range(10):
        with pytest.raises(IntakeFull):
            await intake.accept(a_placed())
    gate.open.set()
    assert all(isinstance(accepted, Accepted) for accepted in await asyncio.gather(*waiting))
    assert isinstance(await intake.accept(a_placed()), Accepted)
    monkeypatch.setattr(intake_module, "MAX_WAITING", 0)
    answer = await post(service)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.headers["content-type"] == "application/problem+json"
