"""E-mail addresses in requests: one mailbox without a display name (RFC 5321, 4.1.2)."""

import re
from functools import lru_cache
from typing import Final

from email_validator import EmailNotValidError, validate_email
from pydantic_core import PydanticCustomError

_ATOM: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_DOT_ATOM: Final = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
"""The part before the @: ASCII only, and not quoted (RFC 5322, 3.2.3)."""
CACHED_DOMAINS: Final = 1024


def email_address(text: str) -> str:
    """Returns the address unchanged. Raises PydanticCustomError if it or its domain is not valid."""
    local, _, domain = text.partition("@")
    if _DOT_ATOM.fullmatch(local) and _domain_fits(domain, len(local)):
        return text
    message = "This must be one e-mail address, as in ana@example.com, without a name."
    raise PydanticCustomError("invalid_email", message)


@lru_cache(CACHED_DOMAINS)
def _domain_fits(domain: str, local_length: int) -> bool:
    """Whether the domain is valid after a dot-atom of this length: together they may have 254 bytes."""
    address = "a" * local_length + "@" + domain
    try:
        validate_email(address, check_deliverability=False, allow_smtputf8=False, strict=True)
    except EmailNotValidError:
        return False
    return True
