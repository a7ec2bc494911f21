"""A request's parameters as Stripe's clients encode them: `amount=5&metadata[a]=1&expand[]=latest_charge`."""

from collections.abc import Collection
from typing import Final
from urllib.parse import parse_qsl

from sandbox.stripe.errors import StripeRefusal, invalid

METADATA_KEYS: Final = 50
METADATA_KEY: Final = 40
METADATA_VALUE: Final = 500
"""Most keys, and most characters of a key and of a value."""


class Form:
    """The parameters of one request."""

    def __init__(self, encoded: str) -> None:
        self.pairs = parse_qsl(encoded, keep_blank_values=True)
        self._values = dict(self.pairs)

    def get(self, name: str) -> str | None:
        """Returns the parameter's value, or None if it is missing or empty."""
        return self._values.get(name) or None

    def required(self, name: str) -> str:
        """Returns the parameter's value. Raises StripeRefusal (parameter_missing)."""
        value = self.get(name)
        if value is None:
            raise invalid(f"Missing required param: {name}.", param=name, code="parameter_missing")
        return value

    def is_true(self, name: str) -> bool:
        """Returns whether the flag is set."""
        return (self.get(name) or "").lower() == "true"

    def nested(self, name: str) -> dict[str, str]:
        """Returns the parameters `metadata[a]=1` as the dictionary `{"a": "1"}`."""
        return {key[len(name) + 1 : -1]: value for key, value in self.pairs if key.startswith(f"{name}[")}

    def metadata(self) -> dict[str, str]:
        """Returns the metadata. Raises StripeRefusal beyond the limits of https://docs.stripe.com/api/metadata."""
        pairs = self.nested("metadata")
        if len(pairs) > METADATA_KEYS:
            raise invalid(f"Metadata can have up to {METADATA_KEYS} keys.", param="metadata")
        for key, value in pairs.items():
            if not 0 < len(key) <= METADATA_KEY or "[" in key or "]" in key:
                raise invalid(f"Metadata keys can have up to {METADATA_KEY} characters.", param="metadata")
            if len(value) > METADATA_VALUE:
                raise invalid(
                    f"Metadata values can have up to {METADATA_VALUE} characters.", param=f"metadata[{key}]"
                )
        return pairs

    def text(self, name: str, longest: int = 5000) -> str | None:
        """Returns the parameter's value, or None if it is missing.

        Raises StripeRefusal if it is empty (which would unset a field), blank or too long.
        """
        value = self._values.get(name)
        if value is None:
            return None
        if not value:
            raise invalid("You passed an empty string.", param=name, code="parameter_invalid_empty")
        if not value.strip():
            raise invalid("You passed a blank string.", param=name, code="parameter_invalid_string_blank")
        if len(value) > longest:
            raise invalid(f"Invalid string: it has more than {longest} characters.", param=name)
        return value

    def integer(self, name: str) -> int | None:
        """Returns the parameter's value as a number. Raises StripeRefusal (parameter_invalid_integer)."""
        value = self.get(name)
        if value is None:
            return None
        if not value.removeprefix("-").isdecimal() or len(value) > 18:
            raise invalid(f"Invalid integer: {value}", param=name, code="parameter_invalid_integer")
        return int(value)

    def expands(self, field: str) -> bool:
        """Returns whether the client wants this field's object instead of its id: https://docs.stripe.com/expand."""
        return any(key.startswith("expand[") and value == field for key, value in self.pairs)

    def check_nested(self, name: str, known: Collection[str]) -> None:
        """Raises StripeRefusal (parameter_unknown) for a parameter `name[…]` that is not known."""
        for inner in self.nested(name):
            if inner.partition("]")[0] not in known:
                raise self._unknown(f"{name}[{inner}]")

    def check(self, known: Collection[str]) -> None:
        """Raises StripeRefusal (parameter_unknown) for a parameter that the endpoint does not have."""
        for key, _ in self.pairs:
            if key.partition("[")[0] not in known and not key.startswith("expand["):
                raise self._unknown(key)

    def _unknown(self, key: str) -> StripeRefusal:
        return invalid(f"Received unknown parameter: {key}", param=key, code="parameter_unknown")
