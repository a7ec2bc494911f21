"""Text from elsewhere, made fit to be kept."""

import re
from typing import Final

_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")


def storable(text: str, limit: int | None = None) -> str:
    """The text as PostgreSQL, JSON and UTF-8 can hold it, at most `limit` characters of it.

    U+FFFD takes the place of NUL, which PostgreSQL refuses, and of lone surrogates, which UTF-8 has no bytes
    for: Python makes them of bytes that it could not decode (PEP 383), in the words of a mail server for
    example.
    """
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text[:limit])
