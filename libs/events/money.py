"""Money: integer minor units and an ISO 4217 currency inside, a decimal string outside.

Never a float. The number of decimals is the currency's (ISO 4217 list one, "minor unit"): JPY 0, EUR 2,
KWD 3. Funds, precious metals, testing codes and currencies without a minor unit are left out.
"""

import re
from decimal import ROUND_HALF_UP, Decimal
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


class UnknownCurrency(ValueError):
    """The currency is not an ISO 4217 code that orders can be paid in."""


class InvalidAmount(ValueError):
    """The amount is not a plain decimal number with the currency's number of decimals."""


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
    decimals = exponent(currency)
    fraction = rf"\.[0-9]{{{decimals}}}" if decimals else ""
    if not re.fullmatch(rf"(0|[1-9][0-9]{{0,11}}){fraction}", text):
        raise InvalidAmount(InvalidAmount.__doc__)
    return int(text.replace(".", ""))


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


def format_decimal(value: int, decimals: int) -> str:
    """Decimal string of `value` times 10 ** -`decimals`, with exactly these decimals."""
    if not decimals:
        return str(value)
    sign, digits = ("-" if value < 0 else ""), str(abs(value)).zfill(decimals + 1)
    return f"{sign}{digits[:-decimals]}.{digits[-decimals:]}"


def tax_on(net: int, rate: str) -> int:
    """Tax on a line's net amount, in minor units, rounded half up to the minor unit.

    `rate` is a decimal fraction: "0.17" is 17 %.
    """
    return int((net * Decimal(rate)).quantize(Decimal(1), rounding=ROUND_HALF_UP))
