"""`orderflow audit` on a system that has to wait, or was given nonsense: no false alarm, nothing hidden."""

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
    """Its messages about the order are not confirmed, and tried again now and then."""
    return f"""
        UPDATE {outbox} SET state = 'pending', published_at = NULL, attempts = 4,
            last_error = 'No answer came in time.', claimed_until = now() + interval '5 seconds'
        WHERE $1 = ANY(order_ids);"""


def never_came(service: str, table: str, event_type: str, column: str) -> str:
    return f"""
        DELETE FROM "{service}".inbox WHERE event_id = {event(event_type)};
        DELETE FROM {table} WHERE order_id = $1 AND {column} = '{event_type}';"""


NOTHING_AFTER_PAYMENT_WAS_ASKED = (
    never_came("email", "email.mails", "SHIPPED", "stage")
    + never_came("email", "email.mails", "PAYMENT_CONFIRMED", "stage")
    + never_came("order", '"order".timeline', "SHIPPED", "type")
    + never_came("order", '"order".timeline', "PAYMENT_CONFIRMED", "type")
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
IN_AN_OUTAGE = NOTHING_AFTER_PAYMENT_WAS_ASKED + UNPAID.format(state="pending", attempts=0)

ON_THE_WAY = {
    "to billing, while the broker is away": NOTHING_AFTER_PAYMENT_WAS_ASKED
    + "DELETE FROM billing.payments WHERE order_id = $1;"
    + f"DELETE FROM billing.inbox WHERE event_id = {event('INVOICE_CREATED')};"
    + waits_in("invoice.outbox"),
    "to the provider, who is away": IN_AN_OUTAGE,
    "to the order": waits_in("shipment.outbox") + never_came("order", '"order".timeline', "SHIPPED", "type"),
    "to the order, of two events the earlier": waits_in("billing.outbox")
    + never_came("order", '"order".timeline', "PAYMENT_CONFIRMED", "type"),
    "to email": waits_in("shipment.outbox") + never_came("email", "email.mails", "SHIPPED", "stage"),
}


async def after(damage: str, url: str) -> uuid.UUID:
    """Does this to the records of the shipped order, all of which are ten minutes old; returns its id."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    order_id = await order_called(connection, "shipped")
    await connection.execute(damage.replace("$1", f"'{order_id}'::uuid"))
    for column in ('"order".timeline SET time', "shipment.shipments SET settled_at"):
        await connection.execute(f"UPDATE {column} = now() - interval '10 minutes'")
    await connection.close()
    return order_id


async def found_in(url: str, *, quiet: bool = False, ledger: Ledger | None = None) -> Report:
    return await audit(Target(url, None), ledger=ledger or ledger_of(url), quiet=quiet, patience=5)


OTHERS_WAIT = """
    UPDATE email.mails SET state = 'pending', claimed_until = now() - interval '10 minutes'
    WHERE order_id = $1 AND stage = 'SHIPPED';
    UPDATE email.mails SET state = 'pending', last_failure = '{failure}',
        claimed_until = now() + interval '5 seconds'
    WHERE order_id = $1 AND stage = 'ORDER_CREATED';"""


async def test_while_one_row_finds_out_that_the_other_side_is_away_the_others_need_not_be_tried(
    journeyed: str,
) -> None:
    order_id = await after(OTHERS_WAIT.format(failure="outage"), journeyed)
    assert (await found_in(journeyed)).breaches == ()
    await after(OTHERS_WAIT.format(failure="unknown"), journeyed)
    [breach] = (await found_in(journeyed)).breaches
    assert (breach.invariant, breach.order_ids) == ("I17", (order_id,))


@pytest.mark.parametrize("where", ON_THE_WAY)
async def test_what_an_outage_holds_up_is_no_breach_while_the_system_lives(
    journeyed: str, where: str
) -> None:
    order_id = await after(ON_THE_WAY[where], journeyed)
    assert (await found_in(journeyed)).breaches == ()
    at_rest = await found_in(journeyed, quiet=True)
    assert order_id in {each for breach in at_rest.breaches for each in breach.order_ids}


async def test_a_payment_whose_outcome_stays_unknown_is_no_outage(journeyed: str) -> None:
    asked = NOTHING_AFTER_PAYMENT_WAS_ASKED + UNPAID.format(state="pending", attempts=3)
    order_id = await after(asked, journeyed)
    [breach] = (await found_in(journeyed)).breaches
    assert (breach.invariant, breach.order_ids) == ("I11", (order_id,))


async def test_what_is_lost_on_its_way_is_found_where_it_should_have_arrived(journeyed: str) -> None:
    order_id = await after(never_came("email", "email.mails", "SHIPPED", "stage"), journeyed)
    connection = await asyncpg.connect(journeyed.replace("+asyncpg", ""))
    await connection.execute("UPDATE shipment.outbox SET published_at = now() - interval '1 minute'")
    await connection.close()
    [breach] = (await found_in(journeyed)).breaches
    assert (breach.invariant, breach.order_ids) == ("I13", (order_id,))


async def test_a_dead_mail_is_no_reason_for_an_order_to_stand_still(journeyed: str) -> None:
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


@pytest.mark.parametrize("quiet", [True, False], ids=["at rest", "living"])
async def test_what_the_order_service_set_aside_with_its_reason_is_told_as_dead_and_is_no_breach(
    journeyed: str, quiet: bool
) -> None:
    set_aside = f"""
        INSERT INTO "order".parked (id, type, order_id, body, reason, state, claimed_until) VALUES
            ({event("SHIPPED")}, 'SHIPPED', $1, '', 'KillsProcess', 'dead', now());
        DELETE FROM "order".timeline WHERE order_id = $1 AND type = 'SHIPPED';"""
    order_id = await after(set_aside, journeyed)
    report = await found_in(journeyed, quiet=quiet)
    assert (report.breaches, report.dead) == ((), {"order": 1})

    await after("""UPDATE "order".parked SET type = 'INVOICE_CREATED'""", journeyed)  # another event's reason
    [untold] = [found for found in (await found_in(journeyed, quiet=quiet)).breaches if found.order_ids]
    assert (untold.invariant, untold.order_ids) == ("I4", (order_id,))


async def test_work_that_was_given_up_is_told_and_is_no_breach(journeyed: str) -> None:
    given_up = NOTHING_AFTER_PAYMENT_WAS_ASKED + UNPAID.format(state="dead", attempts=8)
    await after(given_up, journeyed)
    report = await found_in(journeyed, quiet=True)
    assert report.breaches == ()
    assert [note for note in report.notes if "1 rows of work in billing.payments were given up" in note]


@pytest.mark.parametrize("body", [b"\xff", rb'{"name": "\u0000"}', b"no JSON"], ids=ascii)
async def test_nonsense_under_the_id_of_an_event_is_found_and_ends_no_audit(
    journeyed: str, body: bytes
) -> None:
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
    """It takes its time to list everything, and goes on charging meanwhile; its times are whole seconds."""

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


async def test_what_the_provider_did_after_the_moment_is_not_judged(journeyed: str) -> None:
    assert (await found_in(journeyed, ledger=BusyProvider(journeyed, takes=0))).breaches == ()


async def test_a_provider_may_take_longer_than_the_auditors_role_may_be_idle(
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


@pytest.mark.parametrize("quiet", [True, False], ids=["at rest", "living"])
async def test_a_mail_that_its_policy_puts_off_is_told_and_is_no_breach_while_the_system_lives(
    journeyed: str, quiet: bool
) -> None:
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
        assert breach.sentence == (
            "1 rows of work in email.mails still wait, the first of them after this: 451 Greylisted.."
        )
    else:
        assert report.breaches == ()
        [note] = report.notes
        assert note.startswith("1 rows of work in email.mails wait for their next try, the first since ")
        assert note.endswith(" UTC, after this: 451 Greylisted.")


async def test_a_mail_that_was_put_off_until_it_was_given_up_is_told_and_is_no_breach(journeyed: str) -> None:
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
        "1 mails were put off by the mail server until they were given up; the newest after this: 452 Full.",
    )
