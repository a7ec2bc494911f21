"""Claims on rows, on a real PostgreSQL."""

from datetime import timedelta
from uuid import UUID

from events import outbox
from events.leases import Deferral
from events.outbox import LEASES
from events.retry import Tries
from events.transactions import Transactions
from tests.factories import order_created


async def some_messages(transactions: Transactions, count: int) -> list[UUID]:
    """Due rows, the one that has waited longest first."""
    ids = []
    for _ in range(count):
        async with transactions() as tx:
            [message] = await outbox.write(tx, [order_created()], lease=-1)
            ids.append(message.id)
    return ids


async def test_rows_are_claimed_in_the_order_in_which_they_fell_due_and_by_one_process(
    transactions: Transactions,
) -> None:
    ids = await some_messages(transactions, 5)
    async with transactions() as tx:
        claimed = await LEASES.claim(tx, 3)
    assert [lease.row.id for lease in claimed] == ids[:3]
    async with transactions() as tx:
        claimed = await LEASES.claim(tx, 10)
    assert [lease.row.id for lease in claimed] == ids[3:]
    async with transactions() as tx:
        assert await LEASES.claim(tx, 10) == []


async def test_failures_are_counted_by_their_kind_and_an_outage_is_not(transactions: Transactions) -> None:
    [row_id] = await some_messages(transactions, 1)
    for failure in ("outage", "postponed", "unknown", "defect", "unknown"):
        async with transactions() as tx:
            await LEASES.defer(tx, [Deferral(row_id, failure, "because", -1.0)])
    async with transactions() as tx:
        await tx.execute("UPDATE outbox SET waits_since = now() - interval '1 hour'")
    async with transactions() as tx:
        [lease] = await LEASES.claim(tx, 1)
    assert lease.tries == Tries(attempts=4, defects=1, unknowns=2, waited=lease.tries.waited)
    assert timedelta(hours=1) <= lease.tries.waited < timedelta(hours=1, minutes=5)


async def test_a_row_that_was_given_up_is_never_claimed(transactions: Transactions) -> None:
    first, second = await some_messages(transactions, 2)
    async with transactions() as tx:
        await LEASES.defer(tx, [Deferral(first, "defect", "broken", -1.0, "dead")])
    async with transactions() as tx:
        assert [lease.row.id for lease in await LEASES.claim(tx, 10)] == [second]
        [row] = await tx.fetch("SELECT state, last_error FROM outbox WHERE id = $1", first)
    assert tuple(row) == ("dead", "broken")


async def test_a_row_that_was_replayed_meanwhile_is_not_given_up_for_its_earlier_tries(
    transactions: Transactions,
) -> None:
    [row_id] = await some_messages(transactions, 1)
    for attempts in (0, 1):
        async with transactions() as tx:
            await LEASES.defer(tx, [Deferral(row_id, "unknown", "no answer", -1.0, None, attempts)])
    async with transactions() as tx:  # as `orderflow dead replay` does
        await tx.execute("UPDATE outbox SET attempts = 0, unknowns = 0")
    async with transactions() as tx:
        await LEASES.defer(tx, [Deferral(row_id, "unknown", "no answer", -1.0, "dead", attempts=2)])
        [row] = await tx.fetch("SELECT state, attempts FROM outbox WHERE id = $1", row_id)
    assert tuple(row) == ("pending", 1)
    async with transactions() as tx:
        await LEASES.defer(tx, [Deferral(row_id, "unknown", "no answer", -1.0, "dead", attempts=1)])
        [row] = await tx.fetch("SELECT state FROM outbox WHERE id = $1", row_id)
    assert row["state"] == "dead"


async def test_only_the_claims_of_waiting_rows_are_renewed(transactions: Transactions) -> None:
    first, second = await some_messages(transactions, 2)
    async with transactions() as tx:
        [message] = [lease.row for lease in await LEASES.claim(tx, 10) if lease.row.id == first]
        await outbox.mark_published(tx, [message])
    async with transactions() as tx:
        assert await LEASES.renew(tx, [first, second]) == {second}
    async with transactions() as tx:
        assert await LEASES.claim(tx, 10) == []
