"""`orderflow audit` when a part can't be read: it says so, and checks the rest."""

import uuid
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from sqlalchemy import make_url

from ops.audit.audit import audit
from ops.audit.ledger import LedgerCharge, LedgerUnavailable, SimulatedLedger, StripeLedger
from ops.audit.report import Report
from ops.migrate import AUDITOR
from ops.target import Target
from tests.integration.conftest import order_called
from tests.integration.test_audit import orderflow_audit

NO_SERVER = "127.0.0.1:9"
PROVIDER_DOWN = {
    "PAYMENT_PROVIDER": "stripe",
    "STRIPE_API_KEY": "sk_test_away",
    "STRIPE_BASE_URL": f"http://{NO_SERVER}",
}
A_GAP = "UPDATE invoice.invoice_counters SET last = last + 1"


async def owner(url: str) -> "asyncpg.Connection[Any]":
    return await asyncpg.connect(url.replace("+asyncpg", ""))


async def do(url: str, *statements: str) -> None:
    connection = await owner(url)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


async def found_in(
    url: str, ledger: SimulatedLedger | StripeLedger, broker_url: str | None = None, **how: Any
) -> Report:
    return await audit(Target(url, broker_url), ledger=ledger, **({"patience": 5} | how))


def unseen(report: Report) -> dict[str, tuple[str, ...]]:
    return {each.reason: each.invariants for each in report.unseen}


async def test_without_the_provider_the_rest_is_checked(journeyed: str) -> None:
    status, said = await orderflow_audit("--quiet", DATABASE_URL=journeyed, **PROVIDER_DOWN)
    assert status == 3, said
    assert "No breach was found. Not everything could be checked." in said
    assert "Every promise is kept" not in said
    assert "Not seen: The payment provider's ledger can't be read." in said
    assert "Not checked, or not in full: I5, I6, I7, I8, I9, I10." in said
    assert "? I6" in said
    assert "✓ I18" in said

    await do(journeyed, A_GAP)
    status, said = await orderflow_audit("--quiet", DATABASE_URL=journeyed, **PROVIDER_DOWN)
    assert status == 1, said
    assert "✗ I18" in said
    assert "1 of the promises are not kept. Not everything could be checked." in said


class FailsAfterOnePage(SimulatedLedger):
    """Lists one page of charges, then fails."""

    async def charges(self, since: datetime | None = None) -> AsyncGenerator[Sequence[LedgerCharge], None]:
        ours = (uuid.uuid4(), uuid.uuid4())
        yield [LedgerCharge("ch_1", *ours, 1, "BRL", True, datetime(2026, 1, 1, tzinfo=UTC))]
        raise LedgerUnavailable("It broke off.")


async def test_a_ledger_that_can_be_read_only_in_part_is_not_judged(journeyed: str) -> None:
    report = await found_in(journeyed, FailsAfterOnePage(journeyed))
    assert report.breaches == ()
    assert unseen(report) == {"It broke off.": ("I5", "I6", "I7", "I8", "I9", "I10")}
    assert not report.holds


async def test_without_the_broker_the_rest_is_checked(journeyed: str) -> None:
    """An event that has not arrived may wait in a queue, so arrivals are not checked."""
    await do(journeyed, A_GAP, "DELETE FROM shipment.inbox")
    status, said = await orderflow_audit(
        "--patience", "0", DATABASE_URL=journeyed, BROKER_URL=f"amqp://guest:guest@{NO_SERVER}/"
    )
    assert status == 1, said
    assert "Not seen: The broker does not answer, so the state of its queues is unknown." in said
    assert "Not checked, or not in full: I13, I22." in said
    assert "? I13" in said
    assert "? I22" in said
    assert "✓ I6" in said
    assert "✗ I18" in said


async def test_without_access_to_one_schema_the_rest_is_checked(journeyed: str, journeys: str) -> None:
    role = f"{journeys}_{AUDITOR}"
    await do(journeyed, A_GAP, f'REVOKE USAGE ON SCHEMA shipment FROM "{role}"')
    as_auditor = make_url(journeyed).set(username=role, password=AUDITOR)
    report = await found_in(
        as_auditor.render_as_string(hide_password=False), SimulatedLedger(journeyed), quiet=True
    )
    [(reason, invariants)] = unseen(report).items()
    assert reason == "The database says: permission denied for schema shipment."
    assert "I20" in invariants
    assert not {"I6", "I7", "I18", "I19"} & set(invariants)
    assert [breach.invariant for breach in report.breaches] == ["I18"]
    assert report.orders == 3


class Watched(SimulatedLedger):
    """Between its pages it records the auditor session's state, and runs a statement of the services."""

    def __init__(self, database_url: str, meanwhile: str) -> None:
        super().__init__(database_url)
        self._url = database_url
        self._meanwhile = meanwhile
        self.seen: list[tuple[str, bool]] = []

    async def charges(self, since: datetime | None = None) -> AsyncGenerator[Sequence[LedgerCharge], None]:
        connection = await owner(self._url)
        async for page in super().charges(since):
            yield page
            await connection.execute(self._meanwhile)
            [session] = await connection.fetch(
                "SELECT state, backend_xmin IS NULL AS free FROM pg_stat_activity "
                "WHERE application_name = 'orderflow audit' AND datname = current_database()"
            )
            self.seen.append((session["state"], session["free"]))
        await connection.close()


async def test_no_transaction_is_open_while_the_ledger_is_read_and_later_changes_are_not_judged(
    journeyed: str,
) -> None:
    meanwhile = """
        UPDATE billing.payments SET state = 'captured', provider_reference = 'ch_later'
        WHERE state = 'declined';
        INSERT INTO billing.refunds (id, order_id, cause, payment_id, amount, currency, snapshot, state,
            claimed_until, provider_reference)
        SELECT gen_random_uuid(), order_id, 'SHIPMENT_FAILED', id, amount, currency, '', 'refunded', now(),
            're'
        FROM billing.payments ON CONFLICT DO NOTHING"""
    ledger = Watched(journeyed, meanwhile)
    assert (await found_in(journeyed, ledger)).breaches == ()
    assert ledger.seen == [("idle", True)]


class Recorded(SimulatedLedger):
    """Records the `since` that it was called with."""

    asked: datetime | None = None

    def charges(self, since: datetime | None = None) -> AsyncGenerator[Sequence[LedgerCharge], None]:
        self.asked = since
        return super().charges(since)


async def test_since_limits_the_orders_that_are_judged_and_the_charges_that_are_read(journeyed: str) -> None:
    """A recent refund of an older order is ignored; a recent charge without an order is not."""
    connection = await owner(journeyed)
    old = [await order_called(connection, kind) for kind in ("shipped", "refunded")]
    await connection.close()
    of_the_old = f"('{old[0]}', '{old[1]}')"
    await do(
        journeyed,
        f"""UPDATE "order".orders SET created_at = created_at - interval '3 days' WHERE id IN {of_the_old}""",
        f"""UPDATE provider.charges SET created_at = created_at - interval '3 days', amount = 7
            WHERE order_id IN {of_the_old}""",
        "UPDATE email.mails SET recipient = 'eve@example.com'",
    )
    assert len((await found_in(journeyed, SimulatedLedger(journeyed))).breaches) > 2

    ledger, since = Recorded(journeyed), datetime.now(UTC) - timedelta(days=1)
    report = await found_in(journeyed, ledger, since=since)
    assert [breach.sentence for breach in report.breaches] == [
        "3 mails are addressed to somebody else than the order's customer."
    ]
    assert not set(old) & set(report.breaches[0].order_ids)
    assert report.orders == 1
    assert ledger.asked
    assert since - timedelta(hours=2) < ledger.asked < since

    ghost = """
        INSERT INTO provider.charges (id, key, payment_id, order_id, amount, currency, payment_method, status)
        VALUES ('ch_ghost', 'ghost', gen_random_uuid(), gen_random_uuid(), 1, 'BRL', '', 'succeeded')"""
    await do(journeyed, ghost)
    later = await found_in(journeyed, ledger, since=since, patience=0)
    assert {"I5", "I8"} <= {breach.invariant for breach in later.breaches}


@pytest.mark.parametrize("wrong", ["yesterday", "30"])
async def test_a_since_that_can_not_be_parsed_is_refused_with_an_example(wrong: str) -> None:
    status, said = await orderflow_audit("--since", wrong)
    assert status == 2
    assert "2026-11-24T09:30Z" in said
    assert "Traceback" not in said
