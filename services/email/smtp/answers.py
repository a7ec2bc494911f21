"""A mail server's answers, and which outcome of a mail follows from them."""

import re
from typing import Final

from aiosmtplib import SMTPResponse

from services.email.domain import Outcome
from services.email.mailer import MailPostponed

TOO_LARGE: Final = 552
_MAY_CONCERN_EVERY_MAIL: Final = frozenset({421, 503, 530, 534, 535, 538})
"""Answers about the server or about us that servers also give to RCPT.

421: the server ends the connection. 503: commands out of order; some servers say so when they want AUTH
first. 530, 534, 535, 538: authentication required or refused (RFC 4954, 6; 538: RFC 2554, 6).
"""


def is_ok(answer: SMTPResponse) -> bool:
    """Whether the server has done what it was asked (2xx)."""
    return 200 <= answer.code < 300


def refusal(answer: SMTPResponse, recipient: str) -> Outcome:
    """The outcome of a permanent refusal (5xx). Raises MailPostponed for any other answer."""
    text = without_recipient(answer, recipient)
    may_concern_every_mail = answer.code in _MAY_CONCERN_EVERY_MAIL
    if may_concern_every_mail or not 500 <= answer.code < 600:
        raise MailPostponed(
            f"The mail server does not take this mail now: {text}", perhaps_all=may_concern_every_mail
        )
    return Outcome("refused", text)


def without_recipient(answer: SMTPResponse, recipient: str) -> str:
    """The answer on one line, without the recipient's address, which does not belong in logs."""
    line = one_line(answer.code, answer.message)
    return re.sub(re.escape(recipient), "the recipient", line, flags=re.IGNORECASE)


def one_line(code: int, message: str) -> str:
    """An answer without line breaks and without bytes that are not text."""
    text = message.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return f"{code} {' '.join(text.split())}".replace("\0", "")[:500]
