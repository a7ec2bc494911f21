"""Mails as files: a folder of `.eml` files that any mail program opens."""

import asyncio
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from services.email.domain import Outcome
from services.email.mailer import MailPostponed, MailServerUnavailable, RenderedMail


class FolderMailer:
    """Writes each mail to `<folder>/<name>.eml`. The same mail again replaces the file.

    A file is complete or absent, also after the process was killed. It is not synced to the disk, so a power
    cut may lose it; the table of mails survives that.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def send(self, mail: RenderedMail) -> Outcome:
        """See Mailer.

        An outage if the folder can't be made or takes no file (permissions, a full disk). The mail is
        postponed if only its own file name can't be written.
        """
        return await asyncio.to_thread(self._write, mail)

    def _write(self, mail: RenderedMail) -> Outcome:
        unfinished = self._folder / f".{uuid4().hex}.tmp"
        path = self._folder / f"{mail.name}.eml"
        try:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                unfinished.write_bytes(mail.content)
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
