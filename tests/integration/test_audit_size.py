"""`orderflow audit` on much: it holds no more in memory than a page of the ledger, whatever its length."""

import gc
import tracemalloc

import pytest

from ops.audit import delivery, invoices, ledger, mails, money, orders
from ops.audit.ledger import SimulatedLedger
from ops.services import SERVICES
from tests.integration.test_audit_unseen import do, found_in

CHARGES = """
    INSERT INTO provider.charges (id, key, payment_id, order_id, amount, currency, payment_method, status)
    SELECT 'ch_' || n, 'key ' || n, gen_random_uuid(), gen_random_uuid(), 1, 'BRL', 'pm', 'failed'
    FROM generate_series({first}, {last}) n"""
MIB = 1024 * 1024


async def peak(url: str) -> int:
    """The most memory that an audit allocates, in bytes."""
    gc.collect()
    tracemalloc.start()
    try:
        await found_in(url, SimulatedLedger(url))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


async def test_a_ledger_ten_times_as_long_takes_no_more_memory(
    journeyed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "CHUNK", 500)
    await do(journeyed, CHARGES.format(first=1, last=1_000))
    await peak(journeyed)  # modules loaded by the first audit are no growth
    short = await peak(journeyed)
    await do(journeyed, CHARGES.format(first=1_001, last=20_000))
    assert await peak(journeyed) - short < MIB


async def test_every_page_of_the_ledger_is_judged(journeyed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "CHUNK", 2)
    await do(journeyed, CHARGES.format(first=1, last=9))
    report = await found_in(journeyed, SimulatedLedger(journeyed), patience=0)
    assert [(breach.invariant, breach.count) for breach in report.breaches] == [("I5", 9)]


def test_no_check_sets_a_table_against_a_list_that_may_be_searched_once_for_each_row() -> None:
    """PostgreSQL makes no join of `NOT IN (SELECT …)`, and hashes it only if it fits into `work_mem`."""
    checks = (
        *orders.CHECKS,
        *delivery.checks(SERVICES, quiet=False),
        *money.CHECKS,
        *money.AGAINST_THE_LEDGER,
        *invoices.CHECKS,
        *mails.CHECKS,
    )
    assert [check.breach for check in checks if " IN (SELECT" in " ".join(check.query.split())] == []
