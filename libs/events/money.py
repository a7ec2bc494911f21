"""Money: integer minor units and an ISO 4217 currency inside, a decimal string outside.

Never a float: amounts, prices and quantities are integers, and a rate is a ratio of integers. The number of
decimals is the currency's (ISO 4217 list one, "minor unit"): JPY 0, EUR 2, KWD 3. Funds, precious metals,
testing codes and currencies without a minor unit are left out.
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Final

_TWO_DECIMALS: Final = (
    "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF "
    "CHF CNY COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL "
    "HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP "
    "MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD "
    "SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS "
    "VED VES WST XCD XCG YER ZAR ZMW ZWG"
)

EXPONENTS: Final[dict[str, int]] = {
    **dict.fromkeys("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF".split(), 0),
    **dict.fromkeys(_TWO_DECIMALS.split(), 2),
    **dict.fromkeys("BHD IQD JOD KWD LYD OMR TND".split(), 3),
}
"""Decimals of every currency that an order can have."""

MAX_AMOUNT: Final = 99_999_999_999
"""The largest amount of an order, in minor units: 999,999,999.99 in a currency with two decimals."""
MAX_UNIT_PRICE: Final = 9_999_999_999_999
"""The largest unit price, in units of its own last decimal: thirteen digits."""
MAX_QUANTITY: Final = 100_000
"""The largest quantity of a line."""
PRICE_DECIMALS: Final = 4
"""The most decimals that a unit price can have."""
QUANTITY_DECIMALS: Final = 3
"""The most decimals that a quantity can have."""


class UnknownCurrency(ValueError):
    """The currency is not an ISO 4217 code that orders can be paid in."""


class InvalidAmount(ValueError):
    """The text is not a plain decimal number with the right number of decimals."""


def exponent(currency: str) -> int:
    """Decimals of a currency. Raises UnknownCurrency."""
    try:
        return EXPONENTS[currency]
    except KeyError:
        raise UnknownCurrency(UnknownCurrency.__doc__) from None


def parse_amount(text: str, currency: str) -> int:
    """Minor units of a decimal string: `parse_amount("19.90", "BRL") == 1990`.

    The string has exactly the currency's decimals ("5" and "5.0" are not amounts in EUR, "5.00" is), no
    sign, no exponent, no leading zeros. Raises UnknownCurrency or InvalidAmount.
    """
    least = exponent(currency)
    return _parse(text, least, least)[0]


@lru_cache(maxsize=4096)  # a shop's prices repeat
def parse_price(text: str, currency: str) -> tuple[int, int | None]:
    """A unit price and its decimals, without needless zeros: `parse_price("0.0340", "BRL") == (34, 3)`.

    The string has the currency's decimals or more, up to PRICE_DECIMALS. The decimals are None if they are
    the currency's: `parse_price("19.9000", "BRL") == (1990, None)`. Raises UnknownCurrency or InvalidAmount.
    """
    least = exponent(currency)
    price, decimals = _parse(text, least, PRICE_DECIMALS)
    return price, (None if decimals == least else decimals)


def parse_quantity(text: str) -> tuple[int, int]:
    """A quantity and its decimals, without needless zeros: `parse_quantity("1.50") == (15, 1)`.

    The string has up to QUANTITY_DECIMALS decimals. Raises InvalidAmount.
    """
    return _parse(text, 0, QUANTITY_DECIMALS)


_DECIMAL: Final = re.compile(r"(0|[1-9][0-9]{0,11})(?:\.([0-9]+))?")


def _parse(text: str, least: int, most: int) -> tuple[int, int]:
    """A number in units of its last decimal, and its decimals: at least `least`, else none that are zeros."""
    found = _DECIMAL.fullmatch(text)
    whole, fraction = found.groups("") if found else ("", "")
    decimals = len(fraction)
    if not found or not least <= decimals <= most:
        raise InvalidAmount(InvalidAmount.__doc__)
    number = int(whole + fraction)
    while decimals > least and not number % 10:
        number, decimals = number // 10, decimals - 1
    return number, decimals


def format_amount(minor: int, currency: str) -> str:
    """Decimal string of minor units: `format_amount(1990, "BRL") == "19.90"`. Raises UnknownCurrency."""
    return format_decimal(minor, exponent(currency))


def format_price(price: int, decimals: int | None, currency: str) -> str:
    """Decimal string of a unit price: `format_price(345, 4, "BRL") == "0.0345"`.

    `price` is in units of 10 ** -`decimals` of the currency, or in minor units if `decimals` is None. Raises
    UnknownCurrency.
    """
    return format_decimal(price, exponent(currency) if decimals is None else decimals)


def format_quantity(quantity: int, decimals: int) -> str:
    """Decimal string of a quantity in units of 10 ** -`decimals`: `format_quantity(125, 3) == "0.125"`."""
    return format_decimal(quantity, decimals)


def quantity_in_json(quantity: int, decimals: int) -> int | str:
    """A quantity as the APIs show it: an integer, or a decimal string if it is no whole number."""
    return format_quantity(quantity, decimals) if decimals else quantity


def format_decimal(value: int, decimals: int) -> str:
    """Decimal string of `value` times 10 ** -`decimals`, with exactly these decimals."""
    if not decimals:
        return str(value)
    sign, digits = ("-" if value < 0 else ""), str(abs(value)).zfill(decimals + 1)
    return f"{sign}{digits[:-decimals]}.{digits[-decimals:]}"


@lru_cache(maxsize=1024)
def ratio(rate: str) -> tuple[int, int]:
    """Numerator and denominator of a rate, in lowest terms: `ratio("0.17") == (17, 100)`."""
    return Fraction(rate).as_integer_ratio()


def tax_on(net: int, rate: str) -> int:
    """Tax on a net amount, in minor units, rounded half up: 6.77 on 39.80 at 17 %.

    `rate` is a decimal fraction of the net amount: "0.17" is 17 %.
    """
    return share_of(net, rate)


def tax_within(gross: int, rate: str) -> int:
    """Tax that a gross amount includes, in minor units, rounded half up: 1.60 in 9.99 at 19 %.

    `rate` is a decimal fraction of the net amount, as in `tax_on`.
    """
    numerator, denominator = ratio(rate)
    return rounded(gross * numerator, numerator + denominator)


def share_of(amount: int, rate: str) -> int:
    """This share of an amount, in minor units, rounded half up: 2.00 of 19.98 at "0.1"."""
    numerator, denominator = ratio(rate)
    return rounded(amount * numerator, denominator)


def rounded(numerator: int, denominator: int) -> int:
    """A quotient of integers rounded half up. The numerator is at least 0, the denominator over 0."""
    return (2 * numerator + denominator) // (2 * denominator)


def spread(whole: int, weights: Sequence[int]) -> list[int]:
    """Integer shares of `whole` in proportion to the weights, by largest remainder.

    The shares add up to `whole`. Each is its exact share rounded down, or up for the largest remainders; of
    equal ones the earlier is first. So no share is over its weight if `whole` is not over their sum. Neither
    `whole` nor a weight is below 0. If all weights are 0, so are `whole` and all shares.
    """
    total = sum(weights) or 1
    parts = [divmod(whole * weight, total) for weight in weights]
    shares = [share for share, _ in parts]
    largest_first = sorted(range(len(parts)), key=lambda place: -parts[place][1])
    for place in largest_first[: whole - sum(shares)]:
        shares[place] += 1
    return shares
