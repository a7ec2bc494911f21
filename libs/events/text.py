"""Text from other systems: made storable, and the rule of one visible line."""

import re
from typing import Final

_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")


def storable(text: str, limit: int | None = None) -> str:
    """The text as PostgreSQL, JSON and UTF-8 can store it, at most `limit` characters.

    U+FFFD replaces NUL, which PostgreSQL refuses, and lone surrogates, which UTF-8 can't encode. Python
    makes surrogates from bytes that it can't decode (PEP 383), for example in a mail server's answer.
    """
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text[:limit])


_FORBIDDEN: Final = r"\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
"""Control characters, line ends, and the embeddings, overrides and isolates of UAX #9, 2.1 to 2.4.

The marks of UAX #9, 2.6 (U+200E, U+200F, U+061C) are allowed: they reorder no text around them. The joiners
are allowed too: emoji and several scripts need them.
"""
_INVISIBLE: Final = (
    # White_Space
    r" \xa0\u1680\u2000-\u200a\u202f\u205f\u3000"
    # Default_Ignorable_Code_Point
    r"\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
    r"\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    # annotation controls, and the braille pattern without dots
    r"\ufff9-\ufffb\u2800"
)
"""Characters that are invisible on their own (Unicode 16, PropList.txt and DerivedCoreProperties.txt)."""

ONE_LINE: Final = f"^[^{_FORBIDDEN}]+$"
"""The part of the rule that a JSON schema can express (ECMA-262)."""
_SURROGATES: Final = r"\ud800-\udfff"  # JSON can escape them; UTF-8 can't encode them

_ANY: Final = f"[^{_FORBIDDEN}{_SURROGATES}]"
_VISIBLE: Final = f"[^{_FORBIDDEN}{_SURROGATES}{_INVISIBLE}]"
_VISIBLE_LINE: Final = re.compile(f"{_ANY}*{_VISIBLE}{_ANY}*")
_BLANK: Final = re.compile(f"[{_INVISIBLE}]*")


def is_visible_line(text: str) -> bool:
    """Whether the text is one line that shows something and does not reorder the text around it."""
    return bool(_VISIBLE_LINE.fullmatch(text))


def is_blank(text: str) -> bool:
    """Whether the text shows nothing: white space and invisible characters alone, or no character."""
    return bool(_BLANK.fullmatch(text))
