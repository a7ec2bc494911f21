"""`orderflow audit` during outages and with undecodable bodies: no false alarm, and no breach is missed."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime

import asyncpg
import pytest
from sqlalchemy import make_url

from ops.audit.audit import audit
from ops.audit.ledger import Ledger, LedgerCharge, LedgerRefund, ledger_of
from ops.audit.report import Report
from ops.migrate import AUDITOR
from ops.target import Target
from tests.integration.conftest import order_called


def event(event_type: str) -> str:
    return f"(SELECT event_id FROM \"order\".timeline WHERE order_id = $1 AND type = '{event_type}')"


def waits_in(outbox: str) -> str:
    """SQL: the outbox's messages about the order are not confirmed, and wait for their next try."""
    return f"""
        UPDATE {outbox} SET state = 'pending', published_at = NULL, attempts = 4,
            last_error = 'No answer came in time.', claimed_until = now() + interval '5 seconds'
        WHERE $1 = ANY(order_ids);"""


def not_received(service: str, table: str, event_type: str, column: str) -> str:
    return f"""
        DELETE FROM "{service}".inbox WHERE event_id = {event(event_type)};
        DELETE FROM {table} WHERE order_id = $1 AND {column} = '{event_type}';"""


PAYMENT_NOT_MADE = (
    not_received("email", "email.mails", "SHIPPED", "stage")
    + not_received("email", "email.mails", "PAYMENT_CONFIRMED", "stage")
    + not_received("order", '"order".timeline', "SHIPPED", "type")
    + not_received("order", '"order".timeline', "PAYMENT_CONFIRMED", "type")
    + """
    DELETE FROM shipment.shipments WHERE order_id = $1;
    DELETE FROM shipment.outbox WHERE $1 = ANY(order_ids);
    DELETE FROM billing.outbox WHERE $1 = ANY(order_ids);
    DELETE FROM provider.charges WHERE order_id = $1;"""
)
UNPAID = """
    UPDATE billing.payments SET state = '{state}', attempts = {attempts}, last_error = 'it failed',
        created_at = now() - interval '10 minutes', claimed_until = now() + interval '5 seconds'
    WHERE order_id = $1;"""
IN_AN_OUTAGE = PAYMENT_NOT_MADE + UNPAID.format(state="pending", attempts=0)

HELD_UP = {
    "to billing, while the broker is away": PAYMENT_NOT_MADE
    + "DELETE FROM billing.payments WHERE order_id = $1;"
    + f"DELETE FROM billing.inbox WHERE event_id = {event('INVOICE_CREATED')};"
    + waits_in("invoice.outbox"),
    "to the provider, who is away": IN_AN_OUTAGE,
    "to the order": waits_in("shipment.outbox")
    + not_received("order", '"order".timeline', "SHIPPED", "type"),
    "to the order, of two events the earlier": waits_in("billing.outbox")
    + not_received("order", '"order".timeline', "PAYMENT_CONFIRMED", "type"),
    "to email": waits_in("shipment.outbox") + not_received("email", "email.mails", "SHIPPED", "stage"),
}


async def after(damage: str, url: str) -> uuid.UUID:
    """Applies the damage to the shipped order, whose records are ten minutes old; returns its id."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    order_id = await order_called(connection, "shipped")
    await connection.execute(damage.replace("$1", f"'{order_id}'::uuid"))
    for column in ('"order".timeline SET time', "shipment.shipments SET settled_at"):
        await connection.execute(f"UPDATE {column} = now() - interval '10 minutes'")
    await connection.close()
    return order_id


async def found_in(url: str, *, quiet: bool = False, ledger: Ledger | None = None) -> Report:
    return await audit(Target(url, None), ledger=ledger or ledger_of(url), quiet=quiet, patience=5)


ONE_OF_TWO_TRIED = """
    UPDATE email.mails SET state = 'pending', claimed_until = now() - interval '10 minutes'
    WHERE order_id = $1 AND stage = 'SHIPPED';
    UPDATE email.mails SET state = 'pending', last_failure = '{failure}',
        claimed_until = now() + interval '5 seconds'
    WHERE order_id = $1 AND stage = 'ORDER_CREATED';"""


async def test_rows_are_not_overdue_while_another_row_waits_out_an_outage(
    journeyed: str,
) -> None:
    order_id = await after(ONE_OF_TWO_TRIED.format(failure="outage"), journeyed)
    assert (await found_in(journeyed)).breaches == ()
    await after(ONE_OF_TWO_TRIED.format(failure="unknown"), journeyed)
    [breach] = (await found_in(journeyed)).breaches
    assert (breach.invariant, breach.order_ids) == ("I17", (order_id,))


@pytest.mark.parametrize("where", HELD_UP)
async def test_work_held_up_by_an_outage_is_a_breach_only_at_rest(journeyed: str, where: str) -> None:
    order_id = await after(HELD_UP[where], journeyed)
    assert (await found_in(journeyed)).breaches == ()
    at_rest = await found_in(journeyed, quiet=True)
    assert order_id in {each for breach in at_rest.breaches for each in breach.order_ids}


async def test_a_payment_with_an_unknown_outcome_is_not_excused_by_an_outage(journeyed: str) -> None:
    asked = PAYMENT_NOT_MADE + UNPAID.format(state="pending", attempts=3)
    order_id = await after(asked, journeyed)
    [breach] = (await found_in(journeyed)).breaches
    assert (breach.invariant, breach.order_ids) == ("I11", (order_id,))


async def test_an_event_lost_in_a_queue_is_found(journeyed: str) -> None:
    order_id = await after(not_received("email", "email.mails", "SHIPPED", "stage"), journeyed)
    connection = await asyncpg.connect(journeyed.replace("+asyncpg", ""))
    await connection.execute("UPDATE shipment.outbox SET published_at = now() - interval '1 minute'")
    await connection.close()
    [breach] = (await found_in(journeyed)).breaches
    assert (breach.invariant, breach.order_ids) == ("I13", (order_id,))


async def test_a_dead_mail_does_not_excuse_a_stalled_order(journeyed: str) -> None:
    order_id = await after(
        f"""
        INSERT INTO email.parked (id, type, order_id, body, reason, state, claimed_until)
        VALUES ({event("ORDER_CREATED")}, 'ORDER_CREATED', $1, '', 'Broken', 'dead', now());
        DELETE FROM "order".timeline WHERE order_id = $1 AND type = 'SHIPPED';
        DELETE FROM shipment.shipments WHERE order_id = $1""",
        journeyed,
    )
    breaches = (await found_in(journeyed)).breaches
    assert order_id in {each for breach in breaches if breach.invariant == "I3" for each in breach.order_ids}


@pytest.mark.parametrize("quiet", [True, False], ids=["at rest", "running"])
async def test_an_event_that_the_order_service_parked_excuses_only_its_own_entry(
    journeyed: str, quiet: bool
) -> None:
    parked = f"""
        INSERT INTO "order".parked (id, type, order_id, body, reason, state, claimed_until) VALUES
            ({event("SHIPPED")}, 'SHIPPED', $1, '', 'KillsProcess', 'dead', now());
        DELETE FROM "order".timeline WHERE order_id = $1 AND type = 'SHIPPED';"""
    order_id = await after(parked, journeyed)
    report = await found_in(journeyed, quiet=quiet)
    assert (report.breaches, report.dead) == ((), {"order": 1})

    await after("""UPDATE "order".parked SET type = 'INVOICE_CREATED'""", journeyed)  # another event's reason
    [breach] = [found for found in (await found_in(journeyed, quiet=quiet)).breaches if found.order_ids]
    assert (breach.invariant, breach.order_ids) == ("I4", (order_id,))


async def test_dead_work_is_reported_and_is_no_breach(journeyed: str) -> None:
    given_up = PAYMENT_NOT_MADE + UNPAID.format(state="dead", attempts=8)
    await after(given_up, journeyed)
    report = await found_in(journeyed, quiet=True)
    assert report.breaches == ()
    assert [note for note in report.notes if "Dead rows of billing.payments that need a person: 1." in note]


@pytest.mark.parametrize("body", [b"\xff", rb'{"name": "\u0000"}', b"no JSON"], ids=ascii)
async def test_an_undecodable_body_under_an_events_id_is_found(journeyed: str, body: bytes) -> None:
    await after(
        f"""
        INSERT INTO email.parked (id, type, body, reason, state, claimed_until) VALUES
            ({event("SHIPPED")}, 'SHIPPED', '\\x{body.hex()}', 'invalid_event', 'dead', now())""",
        journeyed,
    )
    report = await found_in(journeyed)
    assert [breach.invariant for breach in report.breaches] == ["I15"]
    assert report.dead == {"email": 1}


class BusyProvider:
    """Lists its charges slowly, and makes new ones meanwhile; its times are whole seconds."""

    provider = "simulated"

    def __init__(self, url: str, *, takes: float) -> None:
        self._ledger = ledger_of(url)
        self._takes = takes

    async def charges(self, since: datetime | None = None) -> AsyncGenerator[Sequence[LedgerCharge], None]:
        await asyncio.sleep(self._takes)
        now = datetime.now(UTC).replace(microsecond=0)
        yield [LedgerCharge("ch_new", uuid.uuid4(), uuid.uuid4(), 100, "BRL", True, now)]
        async for page in self._ledger.charges(since):
            yield page

    async def refunds(self, since: datetime | None = None) -> AsyncGenerator[Sequence[LedgerRefund], None]:
        now = datetime.now(UTC).replace(microsecond=0)
        yield [LedgerRefund(f"re_{of}", uuid.uuid4(), of, 100, now) for of in ("ch_new", "ch_newer")]
        async for page in self._ledger.refunds(since):
            yield page


async def test_charges_made_after_the_snapshot_are_not_judged(journeyed: str) -> None:
    assert (await found_in(journeyed, ledger=BusyProvider(journeyed, takes=0))).breaches == ()


async def test_listing_the_ledger_may_take_longer_than_the_roles_idle_timeout(
    journeyed: str, journeys: str
) -> None:
    role = f"{journeys}_{AUDITOR}"
    auditors = make_url(journeyed).set(username=role, password=AUDITOR).render_as_string(hide_password=False)
    connection = await asyncpg.connect(journeyed.replace("+asyncpg", ""))
    limit = f'ALTER ROLE "{role}" IN DATABASE "{make_url(journeyed).database}" SET '
    await connection.execute(limit + "idle_in_transaction_session_timeout TO '100ms'")
    await connection.close()
    report = await found_in(auditors, ledger=BusyProvider(journeyed, takes=0.5))
    assert report.breaches == ()


@pytest.mark.parametrize("quiet", [True, False], ids=["at rest", "running"])
async def test_a_deferred_mail_is_a_breach_only_at_rest(journeyed: str, quiet: bool) -> None:
    await after(
        """
        UPDATE email.mails SET state = 'pending', attempts = 7, last_error = '451 Greylisted.',
            waits_since = now() - interval '1 day', claimed_until = now() + interval '2 hours'
        WHERE order_id = $1 AND stage = 'SHIPPED'""",
        journeyed,
    )
    report = await found_in(journeyed, quiet=quiet)
    if quiet:
        [breach] = report.breaches
        assert breach.sentence == "Rows of email.mails that still wait: 1; the first failed: 451 Greylisted."
    else:
        assert report.breaches == ()
        [note] = report.notes
        assert note.startswith("Rows of email.mails that wait for a retry: 1, the oldest since ")
        assert note.endswith(" UTC; its last error: 451 Greylisted.")


async def test_a_mail_given_up_after_deferrals_is_reported_and_is_no_breach(journeyed: str) -> None:
    await after(
        """
        UPDATE email.mails SET state = 'refused', outcome = NULL, message_id = NULL, sent_at = NULL,
            last_error = '452 Full.'
        WHERE order_id = $1 AND stage = 'SHIPPED'""",
        journeyed,
    )
    report = await found_in(journeyed, quiet=True)
    assert report.breaches == ()
    assert report.notes == (
        "Mails given up because the mail server kept deferring them: 1; the newest error: 452 Full.",
    )
