"""Checks an idle system: the audit, and the records of the clients and of the mail server."""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from events.worker import MAX_DEATHS
from ops.audit.audit import audit
from ops.audit.ledger import ledger_of
from ops.services import SERVICES
from ops.target import Target
from services.email.work import MAIL_RETRIES
from tests.simulation.database import SimulatedDatabase

if TYPE_CHECKING:
    from tests.simulation.schedule import System

_WORK: Final = {
    **{f'"{service}".outbox': "pending" for service in SERVICES},
    **{f'"{service}".parked': "retry" for service in SERVICES},
    "billing.payments": "pending",
    "billing.refunds": "pending",
    "shipment.shipments": "pending",
    "email.mails": "pending",
}
_WAITING: Final = " UNION ALL ".join(f"SELECT 1 FROM {t} WHERE state = '{s}'" for t, s in _WORK.items())
_GIVEN_UP: Final = " UNION ALL ".join(
    f"SELECT '{table}' AS what FROM {table} WHERE state = 'dead'" for table in _WORK if "parked" not in table
)
_DEAD: Final = " UNION ALL ".join(
    f"SELECT '{service}' AS service, id, reason FROM \"{service}\".parked WHERE state = 'dead'"
    for service in SERVICES
)


@dataclass(frozen=True)
class Finding:
    """A broken promise."""

    invariant: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.sentence}"


async def waiting(database: SimulatedDatabase) -> bool:
    """Whether work waits in any table."""
    return bool(await database.owner.fetch(f"SELECT FROM ({_WAITING}) work LIMIT 1"))


async def replay_mails(database: SimulatedDatabase) -> list[tuple[str, str]]:
    """Replays dead mails with too many unknown outcomes, as an operator does: order and stage of each.

    The time comes from the row, because this connection's clock is not the simulated one.
    """
    replayed = await database.owner.fetch(
        """UPDATE email.mails SET state = 'pending', attempts = 0, defects = 0, unknowns = 0,
            waits_since = written_at, claimed_until = written_at
        WHERE state = 'dead' AND unknowns >= $1 RETURNING order_id, stage""",
        MAIL_RETRIES.unknowns,
    )
    return [(str(row["order_id"]), row["stage"]) for row in replayed]


async def findings(system: "System") -> list[Finding]:
    """Every broken promise."""
    report = await audit(Target(system.database.url, None), ledger=ledger_of(system.database.url), quiet=True)
    return [
        *(Finding(breach.invariant, breach.sentence) for breach in report.breaches),
        *(Finding(each, unseen.reason) for unseen in report.unseen for each in unseen.invariants),
        *await _orders(system),
        *await _dead(system),
        *await _mails(system),
    ]


async def _orders(system: "System") -> list[Finding]:
    """Compares the clients' history with the orders."""
    found: list[Finding] = []
    accepted = system.history.accepted
    stored = {row["id"] for row in await system.database.owner.fetch('SELECT id FROM "order".orders')}
    lost = [planned.order.reference for planned, order_id in accepted if order_id not in stored]
    if lost:
        found.append(Finding("I1", f"Accepted but not stored: {lost}."))
    by_key: dict[str, set[object]] = {}
    for planned, order_id in accepted:
        if planned.key:
            by_key.setdefault(planned.key, set()).add((order_id, planned.order.fingerprint()))
    twice = [key for key, orders in by_key.items() if len(orders) > 1]
    made = await system.database.owner.fetch(
        """SELECT k.key FROM "order".idempotency_keys k FULL JOIN "order".orders o ON o.id = k.order_id
           WHERE o.id IS NULL"""
    )
    if twice or made:
        found.append(Finding("I2", f"One key, more than one order: {twice}; keys without order: {made}."))
    references = Counter(
        row["reference"]
        for row in await system.database.owner.fetch(
            'SELECT reference FROM "order".orders WHERE reference < $1', "Z"
        )
    )
    if many := [reference for reference, count in references.items() if count > 1]:
        found.append(Finding("I2", f"One planned order became several: {many}."))
    return found


async def _dead(system: "System") -> list[Finding]:
    """Dead events are the poison, and innocent events whose processes were killed too often."""
    found: list[Finding] = []
    rows = await system.database.owner.fetch(_DEAD)
    unexpected = [
        f"{row['reason']} in {row['service']}"
        for row in rows
        if row["id"] not in system.poison
        and not (row["reason"] == "KillsProcess" and _may_seem_to_kill(system, row["service"]))
    ]
    missing = system.poison - {row["id"] for row in rows}
    if unexpected or missing or len(system.broker.undecodable) < system.unreadable:
        found.append(
            Finding("I16", f"Dead but not poison: {unexpected}; poison but not dead: {len(missing)}.")
        )
    if dead_work := [row["what"] for row in await system.database.owner.fetch(_GIVEN_UP)]:
        found.append(Finding("I16", f"Work is dead in {dead_work}."))
    return found


def _may_seem_to_kill(system: "System", service: str) -> bool:
    """Whether so many processes of the service were killed that an innocent event may be taken for poison."""
    return system.deaths.get(service, 0) - system.killed[service] >= MAX_DEATHS


async def _mails(system: "System") -> list[Finding]:
    """Compares the mail server's mails with the records of sent mails."""
    found: list[Finding] = []
    versions = Counter(name for name, _, _ in system.mailbox.copies)
    copies: Counter[tuple[str, str]] = Counter()
    for (name, _, _), count in system.mailbox.copies.items():
        copies[name[:36], name[39:]] += count
    rows = await system.database.owner.fetch(
        "SELECT order_id, stage, recipient FROM email.mails WHERE state = 'sent'"
    )
    sent = {(str(row["order_id"]), row["stage"]): row["recipient"] for row in rows}
    received = {(name[:36], name[39:]): recipient for name, recipient, _ in system.mailbox.copies}
    if sent != received:
        found.append(
            Finding("I21", f"{len(sent)} mails are recorded as sent, the mail server has {len(received)}.")
        )
    most = MAIL_RETRIES.unknowns or 0
    if many := [
        count
        for mail, count in copies.items()
        if count > most * (1 + system.replayed[mail]) + system.deaths.get("email", 0)
    ]:
        found.append(Finding("I21", f"{len(many)} mails were sent too often, one of them {max(many)} times."))
    if different := [name for name, count in versions.items() if count > 1]:
        found.append(Finding("I21", f"{len(different)} mails have different contents in different copies."))
    return found
