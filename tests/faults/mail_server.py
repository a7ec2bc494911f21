"""Faults of the mail server, which `mailbox` simulates."""

import asyncio
from dataclasses import dataclass

from tests.faults.cluster import Cluster
from tests.faults.fault import NoEffect


@dataclass(frozen=True)
class WrongAnswer:
    """For some time the mail server answers one command with an error, or resets the connection."""

    command: str
    """RCPT, MAIL, DATA, or CONTENT for the mail itself, which is then not accepted."""
    answer: str
    """An SMTP answer; if empty, the connection is reset instead."""
    seconds: float

    @property
    def name(self) -> str:
        return f"mail server: {self.command} answered with {self.answer or 'a reset'}"

    async def strike(self, cluster: Cluster) -> str:
        box = cluster.mailbox
        box.answers[self.command] = self.answer
        before = box.overridden
        await asyncio.sleep(self.seconds)
        if box.overridden == before:
            raise NoEffect("No mail was sent.")
        return f"{box.overridden - before} commands were answered like this"

    async def heal(self, cluster: Cluster) -> None:
        cluster.mailbox.answers.pop(self.command, None)
