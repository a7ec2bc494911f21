"""Temporary tables for comparing the services' records with the payment provider's ledger.

The records are copied first, then the ledger page by page. So no transaction is open while the provider lists
its charges, and memory use does not grow with their number.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, Final

import asyncpg

from ops.audit.check import SINCE
from ops.audit.ledger import Ledger, LedgerCharge, LedgerRefund

CLOCK_MARGIN: Final = timedelta(hours=1)
"""With `since`, the ledger is read from this much earlier: the provider's clock may differ from ours."""

_RECORDS: Final = {
    "orders": ('SELECT id, total, currency FROM "order".orders x', "id"),
    "payments": (
        """SELECT id, order_id, state, amount, currency, provider, provider_reference, created_at
        FROM billing.payments x""",
        "order_id",
    ),
    "refunds": (
        """SELECT id, order_id, payment_id, state, amount, currency, by_hand, provider_reference
        FROM billing.refunds x""",
        "order_id",
    ),
    "recovered_charges": (
        """SELECT charge, provider, order_id, taken_by, charged_at, decision, to_refund, refund_reference
        FROM billing.recovered_charges x""",
        None,
    ),
}
"""For each table: the query to copy, and its column with the order's id; None copies all, despite `since`."""
_EARLIER_ORDERS: Final = f'SELECT FROM "order".orders o WHERE o.created_at < {SINCE} AND o.id'
_LEDGER: Final = """
    CREATE TEMPORARY TABLE ledger_charges (id text, payment_id uuid, order_id uuid, amount bigint,
        currency text, succeeded boolean, created_at timestamptz, order_reference text, key_hash text);
    CREATE TEMPORARY TABLE ledger_refunds (id text, refund_id uuid, charge_id text, amount bigint,
        created_at timestamptz)"""
_DELETE_EARLIER_REFUNDS: Final = f"""
    DELETE FROM pg_temp.ledger_refunds g USING billing.refunds r
    WHERE r.id = g.refund_id AND EXISTS ({_EARLIER_ORDERS} = r.order_id);
    DELETE FROM pg_temp.ledger_refunds g USING pg_temp.recovered_charges r
    WHERE r.charge = g.charge_id
        AND NOT EXISTS (SELECT FROM pg_temp.ledger_charges c WHERE c.id = g.charge_id)"""
"""Deletes refunds made after `since` of orders or charges from before it."""


async def create(connection: "asyncpg.Connection[Any]") -> None:
    """Creates the tables; a read-only transaction could not."""
    for table, (select, _) in _RECORDS.items():
        await connection.execute(f"CREATE TEMPORARY TABLE {table} AS {select} WITH NO DATA")
    await connection.execute(_LEDGER)


async def copy_records(connection: "asyncpg.Connection[Any]", since: datetime | None) -> None:
    """Copies the services' records; with `since` only those of orders accepted since then."""
    for table, (select, order_id) in _RECORDS.items():
        condition = f" WHERE NOT EXISTS ({_EARLIER_ORDERS} = x.{order_id})" if since and order_id else ""
        await connection.execute(f"INSERT INTO pg_temp.{table} {select}{condition}")
        await connection.execute(f"ANALYZE pg_temp.{table}")


async def copy_ledger(connection: "asyncpg.Connection[Any]", ledger: Ledger, since: datetime | None) -> None:
    """Copies the ledger page by page. Call it after `copy_records`, so it has every charge that they name.

    Raises LedgerUnavailable.
    """
    await connection.execute("SELECT set_config('audit.provider', $1, false)", ledger.provider)
    begin = since - CLOCK_MARGIN if since else None
    await _copy(connection, "ledger_charges", LedgerCharge, ledger.charges(begin))
    await _copy(connection, "ledger_refunds", LedgerRefund, ledger.refunds(begin))
    if since:
        await connection.execute(_DELETE_EARLIER_REFUNDS)


async def _copy(
    connection: "asyncpg.Connection[Any]",
    table: str,
    kind: type[LedgerCharge | LedgerRefund],
    pages: AsyncGenerator[Sequence[LedgerCharge | LedgerRefund], None],
) -> None:
    columns = tuple(kind.__dataclass_fields__)
    row = attrgetter(*columns)
    async with aclosing(pages):
        async for page in pages:
            await connection.copy_records_to_table(
                table, schema_name="pg_temp", columns=columns, records=map(row, page)
            )
    await connection.execute(f"ANALYZE pg_temp.{table}")
