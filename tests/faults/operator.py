"""The operator of a fault run: does what the guarantees leave to a person."""

from ops.dead import command
from ops.dead.command import Selection
from ops.target import Target
from services.email.work import MAIL_RETRIES
from tests.faults.cluster import Cluster


async def replay_mails(cluster: Cluster) -> int:
    """Replays the mails that are dead after too many unknown outcomes, and returns their number.

    Each may have reached its customer, so a person decides; this one sends it again.
    """
    uncertain = await cluster.fetch(
        "SELECT id FROM email.mails WHERE state = 'dead' AND unknowns >= $1", MAIL_RETRIES.unknowns
    )
    if uncertain:
        selection = Selection(service="email", ids=tuple(record["id"] for record in uncertain))
        await command.replay(Target(cluster.database_url, None), selection, named="operator", dry_run=False)
    return len(uncertain)
