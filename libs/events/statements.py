"""Batch statements, derived from SQLAlchemy's Table objects so that no list of columns is written twice.

One statement handles a table's rows of a whole batch. Each argument is one column's values; `unnest` turns
the columns into rows. asyncpg executes the statements.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import count
from typing import Any, Final, NamedTuple

from sqlalchemy import ARRAY, Column, Table
from sqlalchemy.dialects import postgresql

_ARGUMENT: Final = re.compile(r"\$(\d+)")
_CHANGE: Final = re.compile(r"\s*(INSERT|UPDATE|DELETE)\b", re.IGNORECASE)
_DIALECT: Final = postgresql.dialect()  # type: ignore[no-untyped-call]


def insert(
    table: Table,
    columns: Sequence[str],
    *,
    computed: dict[str, str] | None = None,
    then: str = "",
) -> str:
    """INSERT of many rows: one array argument per column, in the order given.

    `computed` maps further columns to SQL expressions; `then` ends the statement, such as `ON CONFLICT DO
    NOTHING RETURNING id`. The values of an array column are passed as Postgres array literals, because unnest
    would flatten arrays.
    """
    computed = computed or {}
    names = ", ".join([*columns, *computed])
    values = ", ".join([_value(table.c[name]) for name in columns] + list(computed.values()))
    return f"INSERT INTO {table.name} ({names}) SELECT {values} FROM {rows(table, columns)} {then}"  # noqa: S608


def rows(table: Table, columns: Sequence[str], alias: str = "row") -> str:
    """`unnest($1::…[], …) AS row (…)`: the arguments as rows, with the types of the table's columns."""
    arrays = ", ".join(f"${n}::{_transport(table.c[name])}[]" for n, name in enumerate(columns, start=1))
    return f"unnest({arrays}) AS {alias} ({', '.join(columns)})"


def columns_of(records: Sequence[Sequence[Any]], width: int) -> list[list[Any]]:
    """Turns rows into columns, the arguments of a statement. `width` is the number of columns."""
    if not records:
        return [[] for _ in range(width)]
    return [list(column) for column in zip(*records, strict=True)]


def array_literal(values: Sequence[object]) -> str:
    """A Postgres array literal. The values must need no quoting, like UUIDs and numbers."""
    return "{" + ",".join(map(str, values)) + "}"


class Part(NamedTuple):
    """A statement to join with others. A counted one takes its expected number of rows as last argument."""

    statement: str
    counted: bool = False


def can_be_joined(statement: str) -> bool:
    """Whether PostgreSQL executes the statement completely inside a WITH, although nothing reads its rows.

    It skips an unread SELECT there (https://www.postgresql.org/docs/current/queries-with.html), and accepts
    neither commands such as SET nor a nested WITH that changes data.
    """
    return _CHANGE.match(statement) is not None


@lru_cache(maxsize=512)
def joined(parts: tuple[Part, ...]) -> str:
    """Joins statements that change data into one, which takes the arguments of all of them in order.

    No part sees the writes of another, and no two parts may write the same row
    (https://www.postgresql.org/docs/current/queries-with.html#QUERIES-WITH-MODIFYING). The whole statement
    fails if a counted part has another number of rows than its last argument: `expect_rows`, a function in
    each service's schema, raises the error.
    """
    if len(parts) == 1 and not parts[0].counted:
        return parts[0].statement
    queries: list[str] = []
    checks: list[str] = []
    arguments = count(1)
    for number, (statement, counted) in enumerate(parts, start=1):
        own = {place: f"${next(arguments)}" for place in range(1, _highest_argument(statement) + 1)}
        queries.append(f"part_{number} AS ({_renumbered(statement, own)})")
        if counted:
            begins = " ".join(statement.split()[:3]).replace("'", "''")
            found = f"SELECT count(*) FROM part_{number}"  # noqa: S608
            checks.append(f"expect_rows(${next(arguments)}, ({found}), '{begins} …')")
    return f"WITH {', '.join(queries)} SELECT {', '.join(checks) or 'true'}"


def _highest_argument(statement: str) -> int:
    return max(map(int, _ARGUMENT.findall(statement)), default=0)


def _renumbered(statement: str, names: Mapping[int, str]) -> str:
    return _ARGUMENT.sub(lambda found: names[int(found[1])], statement)


def _transport(column: Column[Any]) -> str:
    return "text" if isinstance(column.type, ARRAY) else str(column.type.compile(_DIALECT))


def _value(column: Column[Any]) -> str:
    name = f"row.{column.name}"
    return f"{name}::{column.type.compile(_DIALECT)}" if isinstance(column.type, ARRAY) else name
