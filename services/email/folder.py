"""Mails as files: a folder of `.eml` files that any mail program opens."""

import asyncio
import os
from pathlib import Path

from services.email.domain import Outcome
from services.email.mailer import Letter, MailServerUnavailable


class FolderMailer:
    """Writes each mail to `<folder>/<name>.eml`. The same mail again takes the place of the first.

    A file is there whole or not at all, and outlives the process. It is not synced to the disk, as the table
    of mails is: a power cut is the one thing that a folder to look at need not survive.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def send(self, letter: Letter) -> Outcome:
        """See Mailer. A folder that can't be written is an outage."""
        try:
            path = await asyncio.to_thread(self._write, letter)
        except OSError as error:
            raise MailServerUnavailable(f"The mail folder can't be written: {error.strerror}.") from error
        return Outcome("sent", f"written to {path.name}")

    def _write(self, letter: Letter) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{letter.name}.eml"
        unfinished = self._folder / f".{letter.name}.{os.getpid()}.tmp"
        unfinished.write_bytes(letter.content)
        return unfinished.replace(path)
