"""Faults of the mail server, made by the server itself."""

import asyncio
from dataclasses import dataclass

from tests.faults.cluster import Cluster
from tests.faults.fault import NoEffect


@dataclass(frozen=True)
class Grumpy:
    """For a while the mail server answers one command with something else."""

    command: str
    """RCPT, MAIL, DATA, or CONTENT for the mail itself, which is then not taken."""
    answer: str
    """An SMTP answer, or nothing: the connection is cut in its place."""
    seconds: float

    @property
    def name(self) -> str:
        return f"mail server: {self.command} answered with {self.answer or 'a reset'}"

    async def strike(self, cluster: Cluster) -> str:
        box = cluster.mailbox
        box.moods[self.command] = self.answer
        before = box.grumbled
        await asyncio.sleep(self.seconds)
        if box.grumbled == before:
            raise NoEffect("Nobody sent a mail.")
        return f"{box.grumbled - before} commands were answered so"

    async def heal(self, cluster: Cluster) -> None:
        cluster.mailbox.moods.pop(self.command, None)
