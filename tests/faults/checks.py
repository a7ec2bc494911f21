"""The checks at the end of a run: what the clients, the mail server and the logs saw, against the databases.

What databases, broker and ledger can tell among themselves is the audit's part.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from events.journey import ENDS
from ops.audit.audit import audit
from ops.target import Target
from tests.faults.cluster import Cluster
from tests.faults.deliveries import buried, waiting_for_newer
from tests.faults.history import History
from tests.faults.load import CANARY
from tests.faults.mailbox import NOBODY

EXAMPLES: Final = 5


@dataclass(frozen=True)
class Finding:
    """An invariant that does not hold."""

    invariant: str
    sentence: str
    count: int


def _finding(invariant: str, sentence: str, found: Iterable[object]) -> Iterator[Finding]:
    """One finding for all of them, if there are any."""
    each = [str(one) for one in found]
    if each:
        shown = ", ".join(each[:EXAMPLES]) + (", …" if len(each) > EXAMPLES else "")
        yield Finding(invariant, f"{sentence}: {shown}", len(each))


@dataclass(frozen=True)
class Mails:
    """What the mail server took."""

    distinct: int
    copies: int
    """Second and further copies of the same mail."""


async def audited(cluster: Cluster) -> list[Finding]:
    """I3 to I21 and I22, as far as databases, broker and ledger tell among themselves: the audit's report."""
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
    """I1 and I2: what clients saw against what is in the database; and I3, that each came to its own end."""
    orders = {
        record["key"]: (str(record["order_id"]), record["there"], record["types"])
        for record in await cluster.fetch("""
            SELECT k.key, k.order_id, o.id IS NOT NULL AS there,
                (SELECT array_agg(t.type) FROM "order".timeline t WHERE t.order_id = k.order_id) AS types
            FROM "order".idempotency_keys k LEFT JOIN "order".orders o ON o.id = k.order_id""")
    }
    [counted] = await cluster.fetch('SELECT count(*) AS n FROM "order".orders')
    accepted = {key: seen for key, seen in history.keys.items() if seen.answers}
    lost = [key for key in accepted if not orders.get(key, ("", False, ()))[1]]
    two_answers = [key for key, seen in accepted.items() if len(seen.answers) > 1]
    another = [
        key
        for key, seen in accepted.items()
        if key in orders and {order_id for order_id, _ in seen.answers} != {orders[key][0]}
    ]
    other_end = [
        f"{key} is at {sorted(orders[key][2] or ())} instead of {seen.expected}"
        for key, seen in accepted.items()
        if key in orders and set(ENDS).intersection(orders[key][2] or ()) != {seen.expected}
    ]
    ghosts = [key for key in orders if key not in history.keys]
    unkeyed = counted["n"] - len(orders)
    return [
        *_finding("I1", "accepted orders are not in the database", lost),
        *_finding("I2", "keys were answered with different orders or bodies", two_answers),
        *_finding("I2", "keys belong to another order than was answered", another),
        *_finding("I3", "orders did not end as they should", other_end),
        *_finding("I5", "orders have keys that no client sent", ghosts),
        *_finding("I2", "orders without a key of their own", [unkeyed] if unkeyed else []),
    ]


async def mails(cluster: Cluster, history: History) -> tuple[Mails, list[Finding]]:
    """I21: each mail was taken at least once, copies under one Message-ID, and went to the right person."""
    taken: dict[str, dict[str, int]] = defaultdict(dict)
    for (message_id, recipient), count in cluster.mailbox.taken.items():
        taken[message_id.strip("<>").partition("@")[0]][recipient] = count
    due: dict[str, str] = {}
    for record in await cluster.fetch("""
        SELECT t.order_id, t.type, k.key FROM "order".timeline t
        JOIN "order".idempotency_keys k ON k.order_id = t.order_id"""):
        seen = history.keys.get(record["key"])
        due[f"{record['order_id']}.{record['type']}"] = seen.email if seen else ""
    missing = [name for name, to in due.items() if name not in taken and not to.startswith(NOBODY)]
    unknown = [name for name in taken if name not in due]
    wrong = [name for name, to in taken.items() if name in due and to.keys() != {due[name]}]
    copies = sum(count - 1 for to in taken.values() for count in to.values())
    return Mails(len(taken), copies), [
        *_finding("I21", "mails were never taken by the mail server", missing),
        *_finding("I5", "mails tell of nothing that happened", unknown),
        *_finding("I21", "mails went to another person", wrong),
        *_finding("I21", "mails name another person than they went to", cluster.mailbox.misdirected),
    ]


async def dead(cluster: Cluster) -> tuple[int, list[Finding]]:
    """I16: how many events are dead; those that were not put in as poison, and poison that is not dead."""
    found: dict[str, str] = {}
    for service in ("order", "invoice", "billing", "shipment", "email"):
        for record in await cluster.fetch(
            f"SELECT id, reason, last_error FROM \"{service}\".parked WHERE state = 'dead'"
        ):
            found[f"{service} {record['id']}"] = f"{service} {record['id']} {record['reason']}"
    for table in ("billing.payments", "billing.refunds", "shipment.shipments", "email.mails"):
        for record in await cluster.fetch(f"SELECT id, last_error FROM {table} WHERE state = 'dead'"):
            found[f"{table} {record['id']}"] = f"{table} {record['id']} {record['last_error']}"
    found |= {name: name for name in await buried(cluster)}
    expected = cluster.poison - cluster.poison_perhaps
    strange = found.keys() - cluster.poison
    return len(found), [
        *_finding("I16", "dead events that nobody put in", [found[name] for name in strange]),
        *_finding("I16", "poison that disappeared", expected - found.keys()),
    ]


async def newer(cluster: Cluster) -> list[Finding]:
    """I16: events of a newer version wait for it, neither dead nor lost, and nothing else waits with them."""
    waiting = await waiting_for_newer(cluster)
    expected = cluster.newer - cluster.newer_perhaps
    return [
        *_finding("I16", "events of a newer version that do not wait for it", expected - waiting),
        *_finding("I16", "events that this version does not know", waiting - cluster.newer),
    ]


def secrets(cluster: Cluster) -> list[Finding]:
    """I25: no token, password or text of a mail is in a log."""
    told = [
        f"{log.name}: {line.strip()[:200]}"
        for log in sorted(Path(cluster.folder / "logs").glob("*.log"))
        for line in log.open(encoding="utf-8", errors="replace")
        if CANARY in line
    ]
    return [*_finding("I25", "secrets are in the logs", told)]


async def secrets_in_records(cluster: Cluster) -> list[Finding]:
    """I25: nor are they in what is written down of failures."""
    told = []
    for service in ("order", "invoice", "billing", "shipment", "email"):
        tables = await cluster.fetch(
            "SELECT table_name FROM information_schema.columns"
            " WHERE table_schema = $1 AND column_name = 'last_error' AND table_name !~ '[0-9]$'",
            service,
        )
        for table in tables:
            told += [
                f"{service}.{table['table_name']} {record['id']}"
                for record in await cluster.fetch(
                    f'SELECT id FROM "{service}".{table["table_name"]} WHERE last_error LIKE $1',
                    f"%{CANARY}%",
                )
            ]
    return [*_finding("I25", "secrets are in what is kept of failures", told)]
