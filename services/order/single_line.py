"""Text in requests: one visible line that does not reorder the text around it.

It is printed in mail headers, on labels and invoices, and in pages.
"""

import re
from typing import Final

from pydantic_core import PydanticCustomError

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


def single_line(text: str) -> str:
    """Returns the text unchanged. Raises PydanticCustomError if it is blank or not one line."""
    if _VISIBLE_LINE.fullmatch(text):
        return text
    if _BLANK.fullmatch(text):
        raise PydanticCustomError("blank", "This must contain a visible character.")
    message = "This must be one line of Unicode text, without control characters or direction overrides."
    raise PydanticCustomError("wrong_format", message)
