"""The failure of one event never holds up its neighbours, and no event disappears."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

from asyncpg import Record
from uuid_utils.compat import uuid7

from events import envelope, parked
from events.bus import Message
from events.contracts import AnyEvent, Order, OrderCreated
from events.errors import Reject
from events.memory import MemoryBus
from events.transaction import Transaction
from events.worker import Handlers
from tests.conformance.child import LETHAL
from tests.conformance.system import System, record
from tests.factories import an_order, order_created
from tests.waiting import eventually


class Broken(Exception):
    """The handler fails on this event."""


def failing_on(poison: AnyEvent, error: Exception, *, times: int = 1000) -> Handlers:
    """A handler table that fails on one event, the first `times` times."""
    left = times

    async def handle(events: Sequence[OrderCreated], tx: Transaction) -> None:
        nonlocal left
        await record(events, tx)
        if left and any(event.id == poison.id for event in events):
            left -= len(events) == 1
            raise error

    return {OrderCreated: handle}


async def test_an_event_that_fails_is_tried_again_later_and_its_neighbours_at_once(system: System) -> None:
    events = [order_created() for _ in range(9)]
    poison = events[4]
    await system.start("invoice", handlers=failing_on(poison, Broken("not today"), times=1))
    await system.start("order", "email")
    await system.emit(*events)
    [waiting] = await eventually(lambda: system.parked("invoice", "retry"), bool)
    assert waiting["id"] == poison.id
    assert waiting["order_id"] == poison.subject
    assert (waiting["reason"], waiting["last_error"], waiting["attempts"]) == ("Broken", "not today", 1)
    await system.handle_all(events, "invoice", "email")
    assert not await system.parked("invoice", "retry")


async def deferred_event(system: System, attempts: int) -> Record | None:
    """The event that was deferred after this number of attempts and is not due yet."""
    for row in await system.parked("invoice", "retry"):
        if row["attempts"] == attempts and row["later"]:
            return row
    return None


async def test_every_failed_try_is_counted_and_deferred_longer_and_after_the_last_the_event_is_dead(
    system: System,
) -> None:
    poison, event = order_created(), order_created()
    await system.start("invoice", handlers=failing_on(poison, Broken("never")))
    await system.start("order", "email")
    await system.emit(poison, event)
    for attempts in range(1, parked.MAX_ATTEMPTS):
        row = await eventually(partial(deferred_event, system, attempts), bool)
        assert row
        put_off = (row["claimed_until"] - row["last_failed_at"]).total_seconds()
        assert 2 ** (attempts - 1) / 2 <= put_off <= 2 ** (attempts - 1)
        await system.let_claims_run_out()
    [dead] = await eventually(lambda: system.parked("invoice", "dead"), bool)
    assert (dead["id"], dead["reason"], dead["attempts"]) == (poison.id, "Broken", parked.MAX_ATTEMPTS)
    assert dead["first_failed_at"] < dead["last_failed_at"]
    await system.handle_all([event], "invoice")
    await system.handle_all([poison, event], "email")


async def test_a_rejected_event_is_dead_at_once_with_its_reason(system: System) -> None:
    events = [order_created() for _ in range(5)]
    poison = events[2]
    await system.start("invoice", handlers=failing_on(poison, Reject("It makes no sense.")))
    await system.start("order", "email")
    await system.emit(*events)
    [dead] = await eventually(lambda: system.parked("invoice", "dead"), bool)
    assert (dead["id"], dead["reason"], dead["last_error"]) == (poison.id, "Reject", "It makes no sense.")
    assert envelope.decode(b"[" + dead["body"] + b"]") == ([poison], [])
    await system.handle_all([event for event in events if event is not poison], "invoice")
    await system.handle_all(events, "email")


def malformed_events() -> dict[bytes, tuple[str, str]]:
    """Items of a batch that are no events of ours, each with the reason and error of its dead row."""
    order = an_order()

    def another(order: Order | None = None) -> bytes:
        return envelope.encode_one(order_created(order))

    return {
        b"{}": ("invalid_event", "missing required field `type`"),
        b"7": ("invalid_event", "Expected `object`"),
        b'{"type":"ORDER_CANCELLED"}': ("invalid_event", "Invalid value 'ORDER_CANCELLED'"),
        b'{"type":"ORDER_CREATED"}': ("invalid_event", "missing required field"),
        b'{"type":"nul \\u0000"}': ("invalid_event", "Invalid value"),
        b'{"type":"\xff"}': ("invalid_event", "utf-8"),
        another().replace(b":ORDER_CREATED:2", b":ORDER_CREATED:0"): (
            "unsupported_version",
            "ORDER_CREATED:0",
        ),
        another().replace(b'"quantity":2', b'"quantity":0'): ("invalid_event", ">= 1"),
        another().replace(b"T12:00:00Z", b"T12:00:00"): ("invalid_event", "timezone"),
        another(order).replace(str(order.id).encode(), str(uuid7()).encode(), 1): (
            "subject_mismatch",
            "not the id of the order",
        ),
    }


async def test_a_malformed_event_in_a_readable_batch_is_dead_and_its_neighbours_are_handled(
    system: System,
) -> None:
    good = [order_created(), order_created()]
    bad = {body: dead for body, dead in malformed_events().items() if system.transport.carries(body)}
    body = b",".join([envelope.encode_one(good[0]), *bad, envelope.encode_one(good[1])])
    await system.start("order", "invoice", "email")
    await system.publish(Message(uuid7(), "ORDER_CREATED", b"[" + body + b"]", (), ()))
    await system.handle_all(good, "invoice", "email")
    dead = await eventually(lambda: system.parked("email", "dead"), lambda rows: len(rows) == len(bad))
    for row in dead:
        reason, error = bad[row["body"]]
        assert row["reason"] == reason
        assert error in row["last_error"]


def of_a_newer_version(event: AnyEvent) -> dict[str, bytes]:
    """Forms that a newer version may give an event, by the reason why this one can't handle it."""
    body = envelope.encode_one(event)
    return {
        "unknown_type": body.replace(b"ORDER_CREATED", b"ORDER_EXPORTED"),
        "unsupported_version": body.replace(b":ORDER_CREATED:2", b":ORDER_CREATED:3").replace(
            b'"customer"', b'"buyer"'
        ),
    }


async def test_an_event_that_only_a_newer_version_knows_waits_for_one_uncounted(system: System) -> None:
    unknown = {reason: order_created() for reason in of_a_newer_version(order_created())}
    good = order_created()
    bodies = [of_a_newer_version(event)[reason] for reason, event in unknown.items()]
    body = b",".join([*bodies, envelope.encode_one(good)])
    await system.start("order", "invoice", "email")
    await system.publish(Message(uuid7(), "ORDER_CREATED", b"[" + body + b"]", (), ()))
    await system.handle_all([good], "invoice", "email")

    async def tried_again() -> list[Record]:
        return [row for row in await system.parked("email", "retry") if row["last_failed_at"] > parked_at]

    parked_at = max(row["first_failed_at"] for row in await system.parked("email", "retry"))
    await system.let_claims_run_out()
    rows = await eventually(tried_again, lambda rows: len(rows) == len(unknown))
    assert {row["reason"]: (row["id"], row["order_id"], row["attempts"]) for row in rows} == {
        reason: (event.id, event.subject, 0) for reason, event in unknown.items()
    }
    assert not await system.parked("email", "dead")


async def test_a_newer_version_handles_the_events_that_waited_for_it(system: System) -> None:
    event = order_created()
    async with system.transaction("invoice") as tx:  # a process without this handler leaves the row so
        await parked.park_rejected(tx, [envelope.rejected_without_handler(event, "invoice")])
    await system.start("order", "invoice", "email")
    await system.until_handled("invoice", Counter([event.id]))
    assert not await system.parked("invoice", "retry")


async def test_an_event_that_waited_a_week_for_a_newer_version_is_dead(system: System) -> None:
    event = order_created()
    body = of_a_newer_version(event)["unknown_type"]
    await system.start("order", "invoice", "email")
    await system.publish(Message(uuid7(), "ORDER_CREATED", b"[" + body + b"]", (), ()))
    await eventually(lambda: system.parked("email", "retry"), bool)
    await system.query(
        "email", "UPDATE parked SET waits_since = now() - $1::interval", parked.PATIENCE * 1.01
    )
    await system.let_claims_run_out()
    [dead] = await eventually(lambda: system.parked("email", "dead"), bool)
    assert (dead["id"], dead["reason"]) == (event.id, "unknown_type")


UNREADABLE = (
    b"",
    b"[",
    b"not JSON",
    b'{"specversion":"1.0"}',
    b"null",
    b"[" * 100_000,
    b'[{"type":"ORDER_CREATED","x":' + b"[" * 5000 + b"]" * 5000 + b"}]",
    b'[{"type":"\\ud800"}]',
    b"\xef\xbb\xbf[]",
    b'["' + b"x" * envelope.MAX_READ_BYTES + b'"]',
)


async def test_an_undecodable_message_goes_to_the_dead_letter_queue_with_its_reason(system: System) -> None:
    await system.start("order", "invoice", "email")
    unreadable = [body for body in UNREADABLE if system.transport.carries(body)]
    for body in unreadable:
        await system.publish(Message(uuid7(), "ORDER_CREATED", body, (), ()))
    event = order_created()
    await system.emit(event)
    await system.handle_all([event], "invoice", "email")
    for service in ("invoice", "email"):
        dead: list[tuple[bytes, str]] = []
        while len(dead) < len(unreadable):
            dead += await eventually(partial(system.transport.dead, system, service), bool)
        assert Counter(body for body, _ in dead) == Counter(unreadable)
        assert all(reason.startswith("The message ") for _, reason in dead)


@asynccontextmanager
async def child(system: System, dies: str = "") -> AsyncIterator[Process]:
    """The whole system in one child process, killed at the end."""
    task = {"transport": system.transport.described(), "urls": dict(system.urls), "dies": dies}
    command = (sys.executable, "-m", "tests.conformance.child", json.dumps(task))
    process = await asyncio.create_subprocess_exec(*command)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def ended(process: Process) -> int:
    """The exit status, once the process has ended."""
    async with asyncio.timeout(60):
        return await process.wait()


async def test_an_event_that_kills_the_process_is_dead_after_two_deaths_of_its_own(system: System) -> None:
    events = [order_created() for _ in range(6)]
    killer = order_created(an_order(reference=LETHAL))
    await system.emit(*events[:2], killer, *events[2:4])
    await system.emit(*events[4:])
    # It kills four processes: new, redelivered in a batch, and twice alone. In memory three: messages older
    # than the process are redelivered at once. A relay that dies before it marks a message adds a copy.
    least, most = (3, 4) if isinstance(system.bus, MemoryBus) else (4, 6)
    for deaths in range(most + 1):
        async with child(system, "handling") as process:
            await eventually(partial(died_or_parked, system, process), bool)
            if process.returncode is None:
                assert deaths >= least
                [dead] = await system.parked("invoice", "dead")
                assert (dead["id"], dead["reason"]) == (killer.id, "KillsProcess")
                await system.handle_all(events, "invoice")
                await system.handle_all([*events, killer], "email")
                assert not await system.query("invoice", "SELECT * FROM attempts")
                process.send_signal(signal.SIGTERM)
                assert await ended(process) == 0
                return
            assert process.returncode == -signal.SIGKILL
        await system.let_claims_run_out()
    raise AssertionError(f"it killed {most + 1} processes")


async def died_or_parked(system: System, process: Process) -> bool:
    """Whether the process has ended, or has set an event aside as dead."""
    return process.returncode is not None or bool(await system.parked("invoice", "dead"))


async def test_a_relay_killed_between_publish_and_mark_publishes_again_and_events_are_handled_once(
    system: System,
) -> None:
    event = order_created()
    await system.emit(event)
    async with child(system, "published") as process:
        assert await ended(process) == -signal.SIGKILL
    [row] = await system.query("order", "SELECT state FROM outbox")
    assert row["state"] == "pending"
    await system.let_claims_run_out()
    async with child(system) as process:
        await system.handle_all([event], "invoice", "email")
        process.send_signal(signal.SIGTERM)
        assert await ended(process) == 0


async def test_sigterm_loses_nothing_and_leaves_nothing_claimed(system: System) -> None:
    events = [order_created() for _ in range(300)]
    for start in range(0, 300, 2):
        await system.emit(*events[start : start + 2])
    async with child(system) as process:
        await eventually(lambda: system.handled("invoice"), bool)
        process.send_signal(signal.SIGTERM)
        assert await ended(process) == 0
    claimed = "SELECT id FROM outbox WHERE last_error IS NULL AND state = 'pending' AND claimed_until > now()"
    assert not await system.query("order", claimed)
    async with child(system) as process:
        await system.handle_all(events, "invoice", "email")
        process.send_signal(signal.SIGTERM)
        assert await ended(process) == 0
