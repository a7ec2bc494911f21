"""UPU S10: the 13 characters that identify a postal item, such as `RR473124829BR`.

Two letters for the service, eight digits, a check digit, and the country (ISO 3166-1 alpha-2) of the
post that issued it.
Source: Universal Postal Union, standard S10, "Identification of postal items - 13-character identifier".
"""

from typing import Final

SERVICE_LETTERS: Final = "RSTUVWXYABCDEFGHIJKLMNOPQ"
"""Second letters of the service indicator, in the order of their use: RR, RS, … RY, RA, … RQ.

RA to RZ are registered items. RZ is left out because it needs a bilateral agreement.
"""
PER_SERVICE: Final = 10**8
CAPACITY: Final = len(SERVICE_LETTERS) * PER_SERVICE
"""The number of different identifiers of one country."""

_WEIGHTS: Final = (8, 6, 4, 2, 3, 5, 9, 7)


def identifier(serial: int, country: str) -> str:
    """The identifier of the post's item number `serial`, which is from 0 to CAPACITY - 1."""
    service, number = divmod(serial, PER_SERVICE)
    return f"R{SERVICE_LETTERS[service]}{number:08d}{check_digit(number)}{country}"


def check_digit(number: int) -> int:
    """The check digit of eight digits: 11 less the weighted sum modulo 11, with 0 for 10 and 5 for 11."""
    weighted = sum(weight * int(digit) for weight, digit in zip(_WEIGHTS, f"{number:08d}", strict=True))
    remainder = 11 - weighted % 11
    return {10: 0, 11: 5}.get(remainder, remainder)
