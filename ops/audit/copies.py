"""Copies: what is compared with the payment provider's ledger, taken down before it is asked for.

The services' records and the ledger lie in temporary tables of the auditor's session, so no transaction is
open while the provider lists everything, and nothing of it is held in memory.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, Final

import asyncpg

from ops.audit.check import SINCE
from ops.audit.ledger import Ledger, LedgerCharge, LedgerRefund

EARLIER: Final = timedelta(hours=1)
"""How far before that moment the ledger is asked for: the provider's clock is another one."""

_COPIES: Final = {
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
"""What is copied, and which of its columns names the order; None: of all orders, whatever their age."""
_EARLIER_ORDERS: Final = f'SELECT FROM "order".orders o WHERE o.created_at < {SINCE} AND o.id'
_LEDGER: Final = """
    CREATE TEMPORARY TABLE charges (id text, payment_id uuid, order_id uuid, amount bigint, currency text,
        succeeded boolean, created_at timestamptz, order_reference text, key_hash text);
    CREATE TEMPORARY TABLE repayments (id text, refund_id uuid, charge_id text, amount bigint,
        created_at timestamptz)"""
_FORGET_EARLIER_REPAYMENTS: Final = f"""
    DELETE FROM pg_temp.repayments g USING billing.refunds r
    WHERE r.id = g.refund_id AND EXISTS ({_EARLIER_ORDERS} = r.order_id);
    DELETE FROM pg_temp.repayments g USING pg_temp.recovered_charges r
    WHERE r.charge = g.charge_id AND NOT EXISTS (SELECT FROM pg_temp.charges c WHERE c.id = g.charge_id)"""
"""Refunds that were made since the moment for orders or charges from before it."""


async def prepare(connection: "asyncpg.Connection[Any]") -> None:
    """Makes the temporary tables, which a transaction that only reads can't."""
    for table, (select, _) in _COPIES.items():
        await connection.execute(f"CREATE TEMPORARY TABLE {table} AS {select} WITH NO DATA")
    await connection.execute(_LEDGER)


async def copy_records(connection: "asyncpg.Connection[Any]", since: datetime | None) -> None:
    """Takes down the services' records; with `since` only those of orders that were accepted since then."""
    for table, (select, order_id) in _COPIES.items():
        judged = f" WHERE NOT EXISTS ({_EARLIER_ORDERS} = x.{order_id})" if since and order_id else ""
        await connection.execute(f"INSERT INTO pg_temp.{table} {select}{judged}")
        await connection.execute(f"ANALYZE pg_temp.{table}")


async def copy_ledger(connection: "asyncpg.Connection[Any]", ledger: Ledger, since: datetime | None) -> None:
    """Takes down the ledger, page by page. Read after the records, it has every charge that they know of.

    Raises LedgerUnavailable.
    """
    await connection.execute("SELECT set_config('audit.provider', $1, false)", ledger.provider)
    begin = since - EARLIER if since else None
    await _copy(connection, "charges", LedgerCharge, ledger.charges(begin))
    await _copy(connection, "repayments", LedgerRefund, ledger.refunds(begin))
    if since:
        await connection.execute(_FORGET_EARLIER_REPAYMENTS)


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
