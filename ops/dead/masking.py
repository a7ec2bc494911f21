"""Masking: what is shown of a stored row says all but the payment method, which is as good as money."""

import re
from typing import Any, Final

import msgspec

MASK: Final = "***"
SHOWN: Final = 4000
"""Most characters that are shown of what is no JSON."""

_SECRET: Final = "payment_method"  # noqa: S105  # the name of the field
_IN_TEXT: Final = re.compile(rf'("{_SECRET}"\s*:\s*")(?:[^"\\]|\\.)*')
_BYTEA: Final = re.compile(r"\\x(?:[0-9a-f]{2})*")


def shown(value: Any) -> Any:
    """A value of a row as `to_jsonb` gives it: bytes become the JSON or the text that they hold."""
    match value:
        case dict():
            return {key: MASK if key == _SECRET else shown(inner) for key, inner in value.items()}
        case list():
            return [shown(inner) for inner in value]
        case str() if _BYTEA.fullmatch(value):
            return _of_bytes(bytes.fromhex(value[2:]))
        case _:
            return value


def _of_bytes(body: bytes) -> Any:
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = _IN_TEXT.sub(rf"\g<1>{MASK}", body.decode("utf-8", "backslashreplace"))
        printable = "".join(
            c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:SHOWN]
        )
        return printable + (f" … ({len(body)} bytes in all)" if len(text) > SHOWN else "")
    return shown(decoded)
