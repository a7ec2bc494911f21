"""Card numbers in text: no field may hold one, because card data must never be stored."""

import re
from collections.abc import Iterator
from typing import Final
from unicodedata import decimal

from pydantic_core import PydanticCustomError
from stdnum import iban, luhn

_NETWORKS: Final = (
    ("4", (16, 18, 19)),  # Visa
    ("5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720", (16,)),  # Mastercard
    ("3[47]", (15,)),  # American Express
    ("30[0-5]|3[689]", (14, 16, 19)),  # Diners Club
    ("6011|64[4-9]|65", (16, 19)),  # Discover
    ("1800|2131|352[89]|35[3-8]", (16, 17, 18, 19)),  # JCB
    ("62|81", (16, 17, 18, 19)),  # UnionPay
    ("50|5[6-9]|63|67", (14, 15, 16, 17, 18, 19)),  # Maestro
)
"""The first digits of each network's numbers, and their lengths.

Source: `src/lib/card-types.ts` of braintree/credit-card-type, without its catch-all for Maestro (every number
that starts with 6), and with the ranges of UnionPay simplified.
"""
_PREFIXES: Final = {
    length: re.compile("|".join(prefixes for prefixes, lengths in _NETWORKS if length in lengths))
    for length in range(14, 20)
}

_SEPARATOR: Final = "[ \xa0._:,/\u2010-\u2013\u200b-\u200d\u2060\ufeff-]"
_MANY_DIGITS: Final = re.compile(rf"\d(?:{_SEPARATOR}{{0,2}}\d){{13}}")
_GAP: Final = rf"{_SEPARATOR}{{1,2}}"
_RUN: Final = re.compile(rf"(\+?)(\d+(?:{_GAP}\d+)*)")
_IBAN: Final = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{1,4}){2,8}\b")
_MOST_IN_A_PHONE_NUMBER: Final = 15
"""The most digits after a +, by ITU-T E.164."""


def without_card_number(text: str) -> str:
    """Returns the text unchanged. Raises PydanticCustomError if it holds a card number."""
    if len(text) > 13 and _MANY_DIGITS.search(text) and holds_card_number(text):
        message = "Card data must never be sent: use the payment provider's token."
        raise PydanticCustomError("card_data", message)
    return text


def holds_card_number(text: str) -> bool:
    """Whether the text holds a card number: length and first digits of a network, and the Luhn check digit.

    The digits stand together or in groups, of which the first has four, as on a card (ISO/IEC 7812-1). One in
    ten numbers that look alike has a right check digit by chance, so a sku may hold such a number. The digits
    of an IBAN, and of a phone number behind a +, are none.
    """
    text = _IBAN.sub(lambda found: "" if iban.is_valid(found[0]) else found[0], text)
    return any(
        _is_card_number(digits)
        for plus, run in _RUN.findall(text)
        for digits in _candidates(run)
        if not plus or len(digits) > _MOST_IN_A_PHONE_NUMBER
    )


def _candidates(run: str) -> Iterator[str]:
    """The digits of the groups that can be a card number together."""
    groups = ["".join(str(decimal(digit)) for digit in group) for group in re.split(_GAP, run)]
    for start, first in enumerate(groups):
        yield first
        if len(first) == 4:
            number = first
            for group in groups[start + 1 :]:
                number += group
                yield number


def _is_card_number(digits: str) -> bool:
    prefixes = _PREFIXES.get(len(digits))
    return bool(prefixes and prefixes.match(digits) and luhn.is_valid(digits))
