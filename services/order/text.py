"""Text as callers may send it: one line that shows something and does not reorder what stands around it.

It goes into mail headers, onto labels and invoices, and into pages.
"""

import re
from typing import Final

from pydantic_core import PydanticCustomError

_BROKEN: Final = r"\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
"""Control characters, line ends, and the embeddings, overrides and isolates of UAX #9, 2.1 to 2.4.

The marks of UAX #9, 2.6 (U+200E, U+200F, U+061C) stay: they reorder nothing beyond themselves. So do the
joiners, which emoji and several scripts need.
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
"""What shows nothing by itself (Unicode 16, PropList.txt and DerivedCoreProperties.txt)."""

ONE_LINE: Final = f"^[^{_BROKEN}]+$"
"""What a JSON schema can tell of the rule (ECMA-262)."""
_SURROGATES: Final = r"\ud800-\udfff"  # no text: JSON can spell them, UTF-8 can't

_ANY: Final = f"[^{_BROKEN}{_SURROGATES}]"
_VISIBLE: Final = f"[^{_BROKEN}{_SURROGATES}{_INVISIBLE}]"
_READABLE: Final = re.compile(f"{_ANY}*{_VISIBLE}{_ANY}*")
_BLANK: Final = re.compile(f"[{_INVISIBLE}]*")


def readable(text: str) -> str:
    """The text as it came. Raises PydanticCustomError where a person can't read it as one line."""
    if _READABLE.fullmatch(text):
        return text
    if _BLANK.fullmatch(text):
        raise PydanticCustomError("blank", "This must hold something that can be seen.")
    message = "This must be one line of Unicode text, without control characters and direction overrides."
    raise PydanticCustomError("wrong_format", message)
