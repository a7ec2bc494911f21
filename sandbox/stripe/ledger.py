"""The ledger: a SQLite file that holds every intent, charge, refund and saved answer.

A request's transaction is committed before its answer is sent, so an answered request survives SIGKILL. With
`synchronous=NORMAL` a commit reaches the operating system but is not flushed to the disk: a power loss may
drop the last commits, and never damages the file (https://www.sqlite.org/pragma.html#pragma_synchronous).
Tests kill processes, not machines, and a flush per request would make this server slower than the system that
is tested with it.

One process holds the file's lock until it ends. It runs one request's transaction at a time, so rows need no
locks.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from sandbox.stripe.objects import Charge, Intent, Refund

VERSION: Final = 1

SCHEMA: Final = """
    CREATE TABLE intents (
        seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, status TEXT NOT NULL, created INTEGER NOT NULL,
        created_at REAL NOT NULL, changed_at REAL NOT NULL, settles_at REAL, body BLOB NOT NULL) STRICT;
    CREATE INDEX intents_settling ON intents (settles_at) WHERE settles_at IS NOT NULL;
    CREATE TABLE labels (
        name TEXT NOT NULL, value TEXT NOT NULL, intent INTEGER NOT NULL REFERENCES intents,
        PRIMARY KEY (name, value, intent)) STRICT, WITHOUT ROWID;
    CREATE TABLE charges (
        id TEXT NOT NULL PRIMARY KEY, intent TEXT NOT NULL, status TEXT NOT NULL, amount INTEGER NOT NULL,
        currency TEXT NOT NULL, body BLOB NOT NULL) STRICT, WITHOUT ROWID;
    CREATE UNIQUE INDEX charged_once ON charges (intent) WHERE status = 'succeeded';
    CREATE TABLE refunds (
        seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, intent TEXT NOT NULL, amount INTEGER NOT NULL,
        currency TEXT NOT NULL, created INTEGER NOT NULL, body BLOB NOT NULL) STRICT;
    CREATE INDEX refunds_intent ON refunds (intent);
    CREATE TABLE keys (
        key TEXT NOT NULL PRIMARY KEY, fingerprint BLOB NOT NULL, status INTEGER NOT NULL,
        body BLOB NOT NULL, saved_at REAL NOT NULL) STRICT;
"""
"""`body` is the object as JSON; queries use the other columns. `labels` holds the metadata of intents, and
`settles_at` is when an intent stops `processing`."""

_STATUS: Final = "json_extract(CAST(body AS TEXT), '$.status')"

_encode: Final = msgspec.json.Encoder().encode
_intent: Final = msgspec.json.Decoder(Intent).decode
_charge: Final = msgspec.json.Decoder(Charge).decode
_refund: Final = msgspec.json.Decoder(Refund).decode


class LedgerInUse(Exception):
    """Another process has the ledger."""


class UnreadableLedger(Exception):
    """The file is not a ledger of this version."""


class SavedAnswer(NamedTuple):
    """The answer saved with an idempotency key, and the fingerprint of its request."""

    fingerprint: bytes
    status: int
    body: bytes


class Totals(msgspec.Struct, frozen=True):
    """The ledger's totals. Money is by currency, in Stripe's minor unit."""

    intents: dict[str, int]
    """The number of intents by status."""
    charges: int
    """The number of charges that succeeded."""
    captured: dict[str, int]
    refunds: int
    given_back: dict[str, int]
    charged_twice: list[str]
    """At most twenty orders (`order_id` in the metadata) with more than one successful charge."""


class Ledger:
    """The open ledger. Writes belong inside a `transaction`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._next_settling = self._earliest_settling()
        self._refunds_settle: dict[str, float] = self._pending_refunds()
        """When each refund ends. A refund that an earlier process left pending ends at once."""

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commits the block's writes when it ends, and rolls them back if it raises."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # Intents and charges

    def add_intent(self, intent: Intent, now: float) -> None:
        """Inserts an intent with its metadata."""
        cursor = self._db.execute(
            "INSERT INTO intents (id, status, created, created_at, changed_at, body) VALUES (?,?,?,?,?,?)",
            (intent.id, intent.status, intent.created, now, now, _encode(intent)),
        )
        self._db.executemany(
            "INSERT INTO labels (name, value, intent) VALUES (?,?,?)",
            [(name, value, cursor.lastrowid) for name, value in intent.metadata.items()],
        )

    def change_intent(self, intent: Intent, now: float, *, settles_at: float | None = None) -> None:
        """Updates an intent. `settles_at` is when it stops `processing`, if it is."""
        self._db.execute(
            "UPDATE intents SET status = ?, changed_at = ?, settles_at = ?, body = ? WHERE id = ?",
            (intent.status, now, settles_at, _encode(intent), intent.id),
        )
        if settles_at is not None:
            self._next_settling = min(self._next_settling, settles_at)

    def intent(self, intent_id: str) -> Intent | None:
        """Returns the intent, if it exists."""
        row = self._db.execute("SELECT body FROM intents WHERE id = ?", (intent_id,)).fetchone()
        return _intent(row[0]) if row else None

    def due_intents(self, now: float) -> list[Intent]:
        """Returns the intents whose processing time is over."""
        if now < self._next_settling:
            return []
        query = "SELECT body FROM intents WHERE settles_at <= ?"
        due = [_intent(body) for (body,) in self._db.execute(query, (now,))]
        self._next_settling = self._earliest_settling(after=now)
        return due

    def add_charge(self, charge: Charge) -> None:
        """Inserts a charge. The schema allows an intent one that succeeded."""
        self._db.execute(
            "INSERT INTO charges (id, intent, status, amount, currency, body) VALUES (?,?,?,?,?,?)",
            (
                charge.id,
                charge.payment_intent,
                charge.status,
                charge.amount,
                charge.currency,
                _encode(charge),
            ),
        )

    def charge(self, charge_id: str) -> Charge | None:
        """Returns the charge, if it exists."""
        row = self._db.execute("SELECT body FROM charges WHERE id = ?", (charge_id,)).fetchone()
        return _charge(row[0]) if row else None

    def with_metadata(self, labels: Sequence[tuple[str, str]]) -> list[tuple[Intent, float, float]]:
        """Returns the intents with all of this metadata, newest first, with times of creation and change."""
        having = " AND ".join(
            "seq IN (SELECT intent FROM labels WHERE name = ? AND value = ?)" for _ in labels
        )
        rows = self._db.execute(
            f"SELECT body, created_at, changed_at FROM intents WHERE {having} ORDER BY seq DESC",  # noqa: S608
            [part for label in labels for part in label],
        )
        return [(_intent(body), created_at, changed_at) for body, created_at, changed_at in rows]

    # Refunds

    def add_refund(self, refund: Refund, *, settles_at: float | None = None) -> None:
        """Inserts a refund. `settles_at` is when it ends, unless it has ended."""
        if settles_at is not None:
            self._refunds_settle[refund.id] = settles_at
        self._db.execute(
            "INSERT INTO refunds (id, intent, amount, currency, created, body) VALUES (?,?,?,?,?,?)",
            (
                refund.id,
                refund.payment_intent,
                refund.amount,
                refund.currency,
                refund.created,
                _encode(refund),
            ),
        )

    def refund(self, refund_id: str) -> Refund | None:
        """Returns the refund, if it exists."""
        row = self._db.execute("SELECT body FROM refunds WHERE id = ?", (refund_id,)).fetchone()
        return _refund(row[0]) if row else None

    def change_refund(self, refund: Refund) -> None:
        """Updates a refund."""
        self._db.execute("UPDATE refunds SET body = ? WHERE id = ?", (_encode(refund), refund.id))

    def due_refunds(self, now: float) -> list[Refund]:
        """Returns the refunds whose pending time is over, once each."""
        due = [refund_id for refund_id, at in self._refunds_settle.items() if at <= now]
        for refund_id in due:
            del self._refunds_settle[refund_id]
        return [refund for refund_id in due if (refund := self.refund(refund_id))]

    def given_back(self, intent_id: str) -> int:
        """Returns how much of an intent is refunded, pending refunds included."""
        query = f"SELECT coalesce(sum(amount), 0) FROM refunds WHERE intent = ? AND {_STATUS} <> 'failed'"  # noqa: S608
        return int(self._db.execute(query, (intent_id,)).fetchone()[0])

    def refunds_made(self, intent_id: str) -> int:
        """Counts an intent's refunds, failed ones included."""
        query = "SELECT count(*) FROM refunds WHERE intent = ?"
        return int(self._db.execute(query, (intent_id,)).fetchone()[0])

    def refunds_of(self, order_id: str) -> list[Refund]:
        """Returns the refunds of an order's intents, oldest first."""
        rows = self._db.execute(
            """SELECT r.body FROM refunds r JOIN intents i ON i.id = r.intent
               JOIN labels l ON l.intent = i.seq
               WHERE l.name = 'order_id' AND l.value = ? ORDER BY r.seq""",
            (order_id,),
        )
        return [_refund(body) for (body,) in rows]

    # Lists

    def page(
        self,
        table: str,
        limit: int,
        *,
        after: str | None = None,
        before: str | None = None,
        where: Sequence[tuple[str, str | int]] = (),
    ) -> list[bytes] | None:
        """Returns bodies of intents or refunds, newest first, one more than the limit if there are more.

        The page starts `after` (older than) or ends `before` (newer than) the object with that id. Returns
        None if that object does not exist. `where` holds conditions such as `("created >=", 5)`.
        """
        conditions, values = [f"{condition} ?" for condition, _ in where], [value for _, value in where]
        cursor = after or before
        if cursor:
            found = self._db.execute(f"SELECT seq FROM {table} WHERE id = ?", (cursor,)).fetchone()  # noqa: S608
            if not found:
                return None
            conditions.append("seq < ?" if after else "seq > ?")
            values.append(found[0])
        filtered = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        order = "ASC" if before and not after else "DESC"
        query = f"SELECT body FROM {table} {filtered} ORDER BY seq {order} LIMIT ?"  # noqa: S608
        bodies = [body for (body,) in self._db.execute(query, (*values, limit + 1))]
        if order == "ASC":
            bodies = bodies[:limit][::-1] + bodies[limit:]
        return bodies

    # Idempotency keys

    def saved(self, key: str, since: float) -> SavedAnswer | None:
        """Returns the answer saved with a key since then, if there is one."""
        query = "SELECT fingerprint, status, body FROM keys WHERE key = ? AND saved_at > ?"
        row = self._db.execute(query, (key, since)).fetchone()
        return SavedAnswer(*row) if row else None

    def save(self, key: str, answer: SavedAnswer, now: float) -> None:
        """Saves the answer to a key, in place of an expired one."""
        self._db.execute("INSERT OR REPLACE INTO keys VALUES (?,?,?,?,?)", (key, *answer, now))

    def forget_keys(self, until: float) -> int:
        """Deletes the keys saved until then, and returns how many there were."""
        return self._db.execute("DELETE FROM keys WHERE saved_at <= ?", (until,)).rowcount

    # Totals

    def totals(self) -> Totals:
        """Returns the ledger's totals."""
        charged = self._db.execute(
            "SELECT currency, count(*), sum(amount) FROM charges WHERE status = 'succeeded' GROUP BY currency"
        ).fetchall()
        refunded = self._db.execute(
            f"SELECT currency, count(*), sum(amount) FROM refunds WHERE {_STATUS} <> 'failed' "  # noqa: S608
            "GROUP BY currency"
        ).fetchall()
        twice = self._db.execute(
            """SELECT l.value FROM labels l JOIN intents i ON i.seq = l.intent
               WHERE l.name = 'order_id' AND i.status = 'succeeded'
               GROUP BY l.value HAVING count(*) > 1 LIMIT 20"""
        )
        return Totals(
            intents=dict(self._db.execute("SELECT status, count(*) FROM intents GROUP BY status").fetchall()),
            charges=sum(count for _, count, _ in charged),
            captured={currency: amount for currency, _, amount in charged},
            refunds=sum(count for _, count, _ in refunded),
            given_back={currency: amount for currency, _, amount in refunded},
            charged_twice=[order_id for (order_id,) in twice],
        )

    def _pending_refunds(self) -> dict[str, float]:
        query = f"SELECT id FROM refunds WHERE {_STATUS} = 'pending'"  # noqa: S608
        return dict.fromkeys((refund_id for (refund_id,) in self._db.execute(query)), 0.0)

    def _earliest_settling(self, after: float = 0.0) -> float:
        query = "SELECT min(settles_at) FROM intents WHERE settles_at > ?"
        earliest = self._db.execute(query, (after,)).fetchone()[0]
        return float("inf") if earliest is None else float(earliest)


@contextmanager
def opened(file: Path | None) -> Iterator[Ledger]:
    """Opens the ledger in this file and creates it if need be. None opens one in memory.

    Raises LedgerInUse, UnreadableLedger, or OSError if the folder can't be created.
    """
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
    try:
        connection = sqlite3.connect(file or ":memory:", isolation_level=None, timeout=0.5)
    except sqlite3.Error as error:
        raise UnreadableLedger(f"{UnreadableLedger.__doc__} ({error})") from error
    try:
        _prepare(connection)
        yield Ledger(connection)
    finally:
        connection.close()


def _prepare(connection: sqlite3.Connection) -> None:
    """Locks the file for this process, and creates the tables if need be."""
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(
            "PRAGMA wal_autocheckpoint = 8000"
        )  # pages: the two flushes of a checkpoint are then rare
        connection.execute("BEGIN EXCLUSIVE")
        [version] = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            for statement in filter(str.strip, SCHEMA.split(";")):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise LedgerInUse(LedgerInUse.__doc__) from error
        raise UnreadableLedger(f"{UnreadableLedger.__doc__} ({error})") from error
    except sqlite3.DatabaseError as error:
        raise UnreadableLedger(f"{UnreadableLedger.__doc__} ({error})") from error
    if version not in (0, VERSION):
        raise UnreadableLedger(f"{UnreadableLedger.__doc__} (version {version}, not {VERSION})")
