"""The SMTP conversation about one mail, on a connection that is ready for it."""

from aiosmtplib import SMTP, SMTPException, SMTPResponse, SMTPStatus, SMTPTimeoutError

from services.email.domain import Outcome
from services.email.mailer import MailPerhapsSent, MailPostponed, RenderedMail
from services.email.smtp.answers import TOO_LARGE, is_ok, refusal, without_recipient
from services.email.smtp.server import Timeouts


class ConnectionLost(Exception):
    """The connection ended before the mail was handed over."""


async def hand_over(client: SMTP, mail: RenderedMail, timeouts: Timeouts) -> Outcome:
    """The mail's outcome. Raises MailPostponed or ConnectionLost (not taken), or MailPerhapsSent."""
    options = b""
    if not mail.recipient.isascii():
        if not client.supports_extension("smtputf8"):
            return Outcome("refused", "The mail server takes no addresses outside of ASCII (no SMTPUTF8).")
        options = b" BODY=8BITMIME SMTPUTF8"
    answer = await _ask(client, f"MAIL FROM:<{mail.sender}>".encode() + options, timeouts.mail)
    if answer.code == SMTPStatus.domain_unavailable:  # also said to a connection that was idle for too long
        raise ConnectionLost(without_recipient(answer, mail.recipient))
    if not is_ok(answer) and answer.code != TOO_LARGE:  # the sender is the same for every mail
        text = without_recipient(answer, mail.recipient)
        raise MailPostponed(f"The mail server takes nothing from {mail.sender} now: {text}", perhaps_all=True)
    if not is_ok(answer):
        return refusal(answer, mail.recipient)
    answer = await _ask(client, f"RCPT TO:<{mail.recipient}>".encode(), timeouts.rcpt)
    if not is_ok(answer):
        return refusal(answer, mail.recipient)
    answer = await _ask(client, b"DATA", timeouts.data)
    if answer.code != SMTPStatus.start_input:
        return refusal(answer, mail.recipient)
    answer = await _send_content(client, mail.content, timeouts.content)
    if not is_ok(answer):
        return refusal(answer, mail.recipient)
    return Outcome("sent", without_recipient(answer, mail.recipient))


async def _ask(client: SMTP, command: bytes, seconds: float) -> SMTPResponse:
    """The answer to a command. Raises MailPostponed without one in time, ConnectionLost if none can come."""
    try:
        return await client.execute_command(command, timeout=seconds)
    except SMTPTimeoutError as error:
        name = command[:4].decode()
        raise MailPostponed(
            f"The mail server did not answer {name} within {seconds:g} s.", perhaps_all=True
        ) from error
    except (SMTPException, OSError) as error:
        raise ConnectionLost(str(error)) from error


async def _send_content(client: SMTP, content: bytes, seconds: float) -> SMTPResponse:
    """The answer to the mail itself, with its final dot.

    Raises ConnectionLost if nothing could be sent, MailPerhapsSent if no answer tells the mail's outcome.
    """
    protocol = client.protocol
    dotted = content.replace(b"\r\n.", b"\r\n..")  # RFC 5321, 4.5.2; the first line is a header
    try:
        if protocol is None:
            raise ConnectionLost("Connection lost")
        protocol.write(dotted + b".\r\n")
    except (SMTPException, OSError) as error:
        raise ConnectionLost(str(error)) from error
    try:
        answer = await protocol.read_response(timeout=seconds)
    except (SMTPException, OSError) as error:
        raise MailPerhapsSent(f"{MailPerhapsSent.__doc__} ({error})") from error
    if answer.code == SMTPStatus.domain_unavailable:
        client.close()
    if answer.code // 100 not in (2, 4, 5):
        raise MailPerhapsSent(f"{MailPerhapsSent.__doc__} ({answer.code} is no answer to a mail.)")
    return answer
