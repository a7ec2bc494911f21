"""Checks at the end of a run: the clients' history, the mail server and the logs against the databases.

The audit compares databases, broker and ledger with one another.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from events.journey import ENDS
from ops.audit.audit import audit
from ops.services import SERVICES
from ops.target import Target
from tests.faults.cluster import Cluster
from tests.faults.deliveries import dead_letters, parked_newer_events
from tests.faults.history import History
from tests.faults.load import CANARY
from tests.faults.mailbox import UNKNOWN_RECIPIENT

EXAMPLES: Final = 5


@dataclass(frozen=True)
class Finding:
    """A breach of an invariant."""

    invariant: str
    sentence: str
    count: int


def _finding(invariant: str, sentence: str, items: Iterable[object]) -> Iterator[Finding]:
    """One finding for all items, if there are any."""
    texts = [str(item) for item in items]
    if texts:
        examples = ", ".join(texts[:EXAMPLES]) + (", …" if len(texts) > EXAMPLES else "")
        yield Finding(invariant, f"{sentence}: {examples}", len(texts))


@dataclass(frozen=True)
class Mails:
    """The mails that the mail server accepted."""

    distinct: int
    copies: int
    """Second and further copies of the same mail."""


async def audited(cluster: Cluster) -> list[Finding]:
    """The audit's breaches, and the invariants that it could not check."""
    target = Target(cluster.database_url, cluster.broker_url)
    report = await audit(target, ledger=cluster.provider_ledger, quiet=True)
    unseen = [Finding(each, unseen.reason, 1) for unseen in report.unseen for each in unseen.invariants]
    return unseen + [
        Finding(
            breach.invariant,
            breach.sentence + "".join(f" {order_id}" for order_id in breach.order_ids[:EXAMPLES]),
            breach.count,
        )
        for breach in report.breaches
    ]


async def accepted_orders(cluster: Cluster, history: History) -> list[Finding]:
    """I1 and I2: the clients' answers match the database. I3: each order reached its expected end."""
    orders = {
        record["key"]: (str(record["order_id"]), record["stored"], record["types"])
        for record in await cluster.fetch("""
            SELECT k.key, k.order_id, o.id IS NOT NULL AS stored,
                (SELECT array_agg(t.type) FROM "order".timeline t WHERE t.order_id = k.order_id) AS types
            FROM "order".idempotency_keys k LEFT JOIN "order".orders o ON o.id = k.order_id""")
    }
    [counted] = await cluster.fetch('SELECT count(*) AS n FROM "order".orders')
    accepted = {key: seen for key, seen in history.keys.items() if seen.answers}
    lost = [key for key in accepted if not orders.get(key, ("", False, ()))[1]]
    two_answers = [key for key, seen in accepted.items() if len(seen.answers) > 1]
    other_order = [
        key
        for key, seen in accepted.items()
        if key in orders and {order_id for order_id, _ in seen.answers} != {orders[key][0]}
    ]
    wrong_end = [
        f"{key} is at {sorted(orders[key][2] or ())} instead of {seen.expected}"
        for key, seen in accepted.items()
        if key in orders and set(ENDS).intersection(orders[key][2] or ()) != {seen.expected}
    ]
    unsent = [key for key in orders if key not in history.keys]
    without_key = counted["n"] - len(orders)
    return [
        *_finding("I1", "accepted orders are not in the database", lost),
        *_finding("I2", "keys were answered with different orders or bodies", two_answers),
        *_finding("I2", "keys belong to another order than the answer named", other_order),
        *_finding("I3", "orders did not end as expected", wrong_end),
        *_finding("I5", "orders have keys that no client sent", unsent),
        *_finding("I2", "orders have no key of their own", [without_key] if without_key else []),
    ]


async def mails(cluster: Cluster, history: History) -> tuple[Mails, list[Finding]]:
    """I21: each mail was accepted at least once, under one Message-ID, and went to the right person."""
    accepted: dict[str, dict[str, int]] = defaultdict(dict)
    for (message_id, recipient), count in cluster.mailbox.accepted.items():
        accepted[message_id.strip("<>").partition("@")[0]][recipient] = count
    expected: dict[str, str] = {}
    for record in await cluster.fetch("""
        SELECT t.order_id, t.type, k.key FROM "order".timeline t
        JOIN "order".idempotency_keys k ON k.order_id = t.order_id"""):
        seen = history.keys.get(record["key"])
        expected[f"{record['order_id']}.{record['type']}"] = seen.email if seen else ""
    missing = [
        name for name, to in expected.items() if name not in accepted and not to.startswith(UNKNOWN_RECIPIENT)
    ]
    unknown = [name for name in accepted if name not in expected]
    wrong = [name for name, to in accepted.items() if name in expected and to.keys() != {expected[name]}]
    copies = sum(count - 1 for to in accepted.values() for count in to.values())
    return Mails(len(accepted), copies), [
        *_finding("I21", "mails were never accepted by the mail server", missing),
        *_finding("I5", "mails are about events that did not happen", unknown),
        *_finding("I21", "mails went to another person", wrong),
        *_finding("I21", "mails name another recipient than their envelope", cluster.mailbox.misdirected),
    ]


async def dead(cluster: Cluster) -> tuple[int, list[Finding]]:
    """I16: the number of dead rows and messages; they are exactly the poison that was delivered."""
    found: dict[str, str] = {}
    for service in SERVICES:
        for record in await cluster.fetch(
            f"SELECT id, reason, last_error FROM \"{service}\".parked WHERE state = 'dead'"
        ):
            found[f"{service} {record['id']}"] = f"{service} {record['id']} {record['reason']}"
    for table in ("billing.payments", "billing.refunds", "shipment.shipments", "email.mails"):
        for record in await cluster.fetch(f"SELECT id, last_error FROM {table} WHERE state = 'dead'"):
            found[f"{table} {record['id']}"] = f"{table} {record['id']} {record['last_error']}"
    found |= {name: name for name in await dead_letters(cluster)}
    expected = cluster.poison - cluster.poison_unconfirmed
    unexpected = found.keys() - cluster.poison
    return len(found), [
        *_finding("I16", "dead events that are not poison", [found[name] for name in unexpected]),
        *_finding("I16", "poison that disappeared", expected - found.keys()),
    ]


async def newer_events(cluster: Cluster) -> list[Finding]:
    """I16: exactly the delivered events of a newer version wait for it; none is dead or lost."""
    waiting = await parked_newer_events(cluster)
    expected = cluster.newer - cluster.newer_unconfirmed
    return [
        *_finding("I16", "events of a newer version that are not parked for it", expected - waiting),
        *_finding("I16", "parked events of unknown types that were not delivered", waiting - cluster.newer),
    ]


def secrets_in_logs(cluster: Cluster) -> list[Finding]:
    """I25: no token, password or mail text is in a log."""
    leaks = [
        f"{log.name}: {line.strip()[:200]}"
        for log in sorted(Path(cluster.folder / "logs").glob("*.log"))
        for line in log.open(encoding="utf-8", errors="replace")
        if CANARY in line
    ]
    return [*_finding("I25", "secrets are in the logs", leaks)]


async def secrets_in_records(cluster: Cluster) -> list[Finding]:
    """I25: no token, password or mail text is in a recorded error."""
    leaks = []
    for service in SERVICES:
        tables = await cluster.fetch(
            "SELECT table_name FROM information_schema.columns"
            " WHERE table_schema = $1 AND column_name = 'last_error' AND table_name !~ '[0-9]$'",
            service,
        )
        for table in tables:
            leaks += [
                f"{service}.{table['table_name']} {record['id']}"
                for record in await cluster.fetch(
                    f'SELECT id FROM "{service}".{table["table_name"]} WHERE last_error LIKE $1',
                    f"%{CANARY}%",
                )
            ]
    return [*_finding("I25", "secrets are in recorded errors", leaks)]
