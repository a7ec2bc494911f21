"""Formats mails (RFC 5322, MIME).

The standard library's EmailMessage parses and folds every header anew, which takes twenty times as long. The
tests read the result with it.
"""

import binascii
import re
from collections.abc import Mapping
from email.header import Header
from email.utils import parseaddr, quote
from typing import Final

from email_validator import EmailNotValidError, validate_email

CRLF: Final = "\r\n"
_LONGEST_LINE: Final = 76

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_PLAIN_ADDRESS: Final = re.compile(r"[^\x00-\x20\x7f-\xff()<>\[\]:;@\\,\"]+@[A-Za-z0-9.-]+")


class UnusableAddress(ValueError):
    """No mail can be sent to this address."""


def one_line(text: str) -> str:
    """The text without control characters and line breaks, so that it can't leave its place in a mail."""
    return text if text.isprintable() else _CONTROL.sub(" ", text)


def envelope_address(text: str) -> str:
    """The address for the envelope, with the domain in ASCII (IDNA 2008).

    The result is outside of ASCII only if the local part is. Raises UnusableAddress.
    """
    if text.isascii():
        if not _PLAIN_ADDRESS.fullmatch(text):
            raise UnusableAddress(UnusableAddress.__doc__)
        return text
    try:
        valid = validate_email(text, check_deliverability=False, test_environment=True)
    except EmailNotValidError as error:
        raise UnusableAddress(UnusableAddress.__doc__) from error
    return valid.ascii_email or valid.normalized


def parse_mailbox(text: str) -> tuple[str, str]:
    """Name and address of `Name <address>`; the name may be empty.

    Raises UnusableAddress, also for an address outside of ASCII, which not every mail server takes.
    """
    name, spec = parseaddr(text)
    if not (spec and envelope_address(spec).isascii()):
        raise UnusableAddress(UnusableAddress.__doc__)
    return name, envelope_address(spec)


def text_header(name: str, text: str) -> str:
    """A header of free text, encoded (RFC 2047) and folded if needed."""
    value = one_line(text)
    if not value.isascii() or "=?" in value or len(name) + len(value) + 2 > _LONGEST_LINE:
        value = _encoded(name, value)
    return f"{name}: {value}{CRLF}"


def address_header(name: str, person: str, spec: str) -> str:
    """A header with one address and its owner's name, which may be empty."""
    person = one_line(person).strip()
    if not person:
        return f"{name}: <{spec}>{CRLF}"
    plain = person.isascii() and "=?" not in person
    shown = f'"{quote(person)}"' if plain else _encoded(name, person)
    return f"{name}: {shown}{CRLF} <{spec}>{CRLF}"


def multipart_alternative(headers: str, bodies: Mapping[str, str], boundary: str) -> bytes:
    """A message with these header lines and one text in several subtypes, the richest last.

    `boundary` must not occur in the bodies.
    """
    head = f'MIME-Version: 1.0{CRLF}Content-Type: multipart/alternative; boundary="{boundary}"{CRLF}{CRLF}'
    parts = [headers.encode(), head.encode()]
    for subtype, text in bodies.items():
        part = (
            f"--{boundary}{CRLF}"
            f'Content-Type: text/{subtype}; charset="utf-8"{CRLF}'
            f"Content-Transfer-Encoding: quoted-printable{CRLF}{CRLF}"
        )
        lines = text.replace("\n", CRLF).encode()
        parts += (part.encode(), binascii.b2a_qp(lines), CRLF.encode())
    parts.append(f"--{boundary}--{CRLF}".encode())
    return b"".join(parts)


def _encoded(name: str, text: str) -> str:
    charset = "us-ascii" if text.isascii() and "=?" not in text else "utf-8"
    return Header(text, charset, header_name=name, maxlinelen=_LONGEST_LINE).encode(linesep=CRLF)
