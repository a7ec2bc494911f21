"""Text from other systems, made storable."""

import re
from typing import Final

_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")


def storable(text: str, limit: int | None = None) -> str:
    """The text as PostgreSQL, JSON and UTF-8 can store it, at most `limit` characters.

    U+FFFD replaces NUL, which PostgreSQL refuses, and lone surrogates, which UTF-8 can't encode. Python
    makes surrogates from bytes that it can't decode (PEP 383), for example in a mail server's answer.
    """
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text[:limit])
