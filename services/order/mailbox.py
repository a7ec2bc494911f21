"""An e-mail address as callers may send it: one mailbox (RFC 5321, 4.1.2), without a name."""

import re
from functools import lru_cache
from typing import Final

from email_validator import EmailNotValidError, validate_email
from pydantic_core import PydanticCustomError

_ATOM: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_DOT_ATOM: Final = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
"""The part before the @, neither quoted nor in other letters than ASCII's (RFC 5322, 3.2.3)."""
REMEMBERED: Final = 1024
"""Most verdicts that are kept."""


def mailbox(text: str) -> str:
    """The address as it came. Raises PydanticCustomError where it is not one, or has an impossible domain."""
    local, _, domain = text.partition("@")
    if _DOT_ATOM.fullmatch(local) and _completes(domain, len(local)):
        return text
    message = "This must be one e-mail address, as in ana@example.com, without a name."
    raise PydanticCustomError("invalid_email", message)


@lru_cache(REMEMBERED)
def _completes(domain: str, length: int) -> bool:
    """Whether the domain makes an address of a dot-atom of this length: both count, against 254 bytes."""
    address = "a" * length + "@" + domain
    try:
        validate_email(address, check_deliverability=False, allow_smtputf8=False, strict=True)
    except EmailNotValidError:
        return False
    return True
