"""Mails as files: a folder of `.eml` files that any mail program opens."""

import asyncio
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from services.email.domain import Outcome
from services.email.mailer import Letter, MailPostponed, MailServerUnavailable


class FolderMailer:
    """Writes each mail to `<folder>/<name>.eml`. The same mail again takes the place of the first.

    A file is there whole or not at all, and outlives the process. It is not synced to the disk, as the table
    of mails is: a power cut is the one thing that a folder to look at need not survive.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def send(self, letter: Letter) -> Outcome:
        """See Mailer.

        A folder that can't be made or takes no file (permissions, a full disk) is an outage. A file that
        can't take its own name is this mail's trouble.
        """
        return await asyncio.to_thread(self._write, letter)

    def _write(self, letter: Letter) -> Outcome:
        unfinished = self._folder / f".{uuid4().hex}.tmp"
        path = self._folder / f"{letter.name}.eml"
        try:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                unfinished.write_bytes(letter.content)
            except OSError as error:
                raise MailServerUnavailable(f"The mail folder can't be written: {error.strerror}.") from error
            try:
                unfinished.replace(path)
            except OSError as error:
                raise MailPostponed(
                    f"The file {path.name} can't be written: {error.strerror}.", perhaps_all=True
                ) from error
        finally:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
        return Outcome("sent", f"written to {path.name}")
