"""The mailer by SMTP: one mail server, and as many connections as mails are in flight."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from aiosmtplib import SMTP

from services.email.domain import Outcome
from services.email.mailer import MailPostponed, RenderedMail
from services.email.smtp.connections import Connections
from services.email.smtp.conversation import ConnectionLost, hand_over
from services.email.smtp.server import RFC_5321, Server, Timeouts


class SmtpMailer:
    """Hands mails to one mail server.

    A refusal before a mail (connecting, greeting, EHLO, STARTTLS, AUTH) concerns the server: an outage. A
    refusal in a mail's conversation concerns that mail, which is refused or postponed. Some answers there may
    concern every mail: the error says so (`perhaps_all`), and several different mails have to meet one before
    it counts as an outage.
    """

    def __init__(self, server: Server, domain: str, timeouts: Timeouts) -> None:
        self._connections = Connections(server, domain, timeouts)
        self._timeouts = timeouts

    async def send(self, mail: RenderedMail) -> Outcome:
        """See Mailer."""
        idle = await self._connections.take_idle()
        if idle:
            with suppress(ConnectionLost):  # it ended while idle: once more over a new one
                return await self._send_over(idle, mail)
        try:
            return await self._send_over(await self._connections.open_or_wait(), mail)
        except ConnectionLost as error:
            raise MailPostponed(
                f"The mail server ended the conversation about this mail: {error}", perhaps_all=True
            ) from error

    async def close(self) -> None:
        """Closes all idle connections."""
        await self._connections.close()

    async def _send_over(self, client: SMTP, mail: RenderedMail) -> Outcome:
        try:
            with self._connections.in_use():
                outcome = await hand_over(client, mail, self._timeouts)
        except MailPostponed:
            self._connections.keep(client, clean=False)
            raise
        except BaseException:  # the state of the conversation is unknown
            client.close()
            raise
        self._connections.keep(client, clean=outcome.state == "sent")
        return outcome


@asynccontextmanager
async def connect(server: Server, domain: str, timeouts: Timeouts = RFC_5321) -> AsyncIterator[SmtpMailer]:
    """A mailer that greets the server as `domain`, and ends its connections at the end."""
    mailer = SmtpMailer(server, domain, timeouts)
    try:
        yield mailer
    finally:
        await mailer.close()
