"""Batch statements, derived from SQLAlchemy's Table objects so that no list of columns is written twice.

asyncpg runs them as they are: one statement per table and batch, whatever the number of rows. An argument
is one column's values; `unnest` turns the columns back into rows.
"""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ARRAY, Column, Table
from sqlalchemy.dialects import postgresql

_DIALECT: Final = postgresql.dialect()  # type: ignore[no-untyped-call]


def insert(
    table: Table,
    columns: Sequence[str],
    *,
    computed: dict[str, str] | None = None,
    then: str = "",
) -> str:
    """INSERT of many rows: one array argument per column, in the order given.

    `computed` are further columns with an SQL expression each; `then` is what follows, such as
    `ON CONFLICT DO NOTHING RETURNING id`. A column that is itself an array takes its values as Postgres array
    literals in text, because unnest would flatten them.
    """
    computed = computed or {}
    names = ", ".join([*columns, *computed])
    values = ", ".join([_value(table.c[name]) for name in columns] + list(computed.values()))
    return f"INSERT INTO {table.name} ({names}) SELECT {values} FROM {rows(table, columns)} {then}"  # noqa: S608


def rows(table: Table, columns: Sequence[str], alias: str = "row") -> str:
    """`unnest($1::…[], …) AS row (…)`: the arguments as rows, typed as the table's columns are."""
    arrays = ", ".join(f"${n}::{_transport(table.c[name])}[]" for n, name in enumerate(columns, start=1))
    return f"unnest({arrays}) AS {alias} ({', '.join(columns)})"


def columns_of(records: Sequence[Sequence[Any]], width: int) -> list[list[Any]]:
    """Rows turned into columns, as the statements take them; `width` is the number of columns."""
    if not records:
        return [[] for _ in range(width)]
    return [list(column) for column in zip(*records, strict=True)]


def array_literal(values: Sequence[object]) -> str:
    """A Postgres array literal of values that need no quoting, such as UUIDs and numbers."""
    return "{" + ",".join(map(str, values)) + "}"


def _transport(column: Column[Any]) -> str:
    return "text" if isinstance(column.type, ARRAY) else str(column.type.compile(_DIALECT))


def _value(column: Column[Any]) -> str:
    name = f"row.{column.name}"
    return f"{name}::{column.type.compile(_DIALECT)}" if isinstance(column.type, ARRAY) else name
