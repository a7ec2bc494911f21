"""Masking: hides the payment method in a stored row, because it can be charged."""

import re
from typing import Any, Final

import msgspec

MASK: Final = "***"
MAX_TEXT: Final = 4000
"""Most characters that are shown of a body that is not JSON."""

_SECRET: Final = "payment_method"  # noqa: S105  # the name of the field
_IN_TEXT: Final = re.compile(rf'("{_SECRET}"\s*:\s*")(?:[^"\\]|\\.)*')
_BYTEA: Final = re.compile(r"\\x(?:[0-9a-f]{2})*")


def masked(value: Any) -> Any:
    """A value of a row, as `to_jsonb` returns it, masked; bytes become the JSON or text that they contain."""
    match value:
        case dict():
            return {key: MASK if key == _SECRET else masked(inner) for key, inner in value.items()}
        case list():
            return [masked(inner) for inner in value]
        case str() if _BYTEA.fullmatch(value):
            return _decoded(bytes.fromhex(value[2:]))
        case _:
            return value


def _decoded(body: bytes) -> Any:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = _IN_TEXT.sub(rf"\g<1>{MASK}", body.decode("utf-8", "backslashreplace"))
        printable = "".join(
            c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:MAX_TEXT]
        )
        return printable + (f" … ({len(body)} bytes in all)" if len(text) > MAX_TEXT else "")
    return masked(value)
