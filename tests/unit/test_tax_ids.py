"""Tax ids have a form of the country that the invoice is addressed to."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.countries import COUNTRIES
from services.order.tax_ids import CHECKED_COUNTRIES, InvalidTaxId, compact


@pytest.mark.parametrize(
    ("country", "given", "kept"),
    [
        ("DE", "DE 136 695 976", "DE136695976"),
        ("DE", "de136695976", "DE136695976"),
        ("DE", "136695976", "136695976"),
        ("DE", "36 574 261 809", "36574261809"),  # a person's
        ("AT", "ATU13585627", "ATU13585627"),
        ("ES", "ESB58378431", "ESB58378431"),
        ("ES", "54362315-K", "54362315K"),
        ("FR", "FR 40 303 265 045", "FR40303265045"),
        ("FR", "732 829 320 00074", "73282932000074"),
        ("GR", "EL 094259216", "EL094259216"),
        ("GB", "GB 980 7806 84", "GB980780684"),
        ("GB", "980 7806 84", "980780684"),
        ("GB", "XI110305878", "XI110305878"),
        ("IT", "IT 00743110157", "IT00743110157"),
        ("IT", "RCCMNL83S18D969H", "RCCMNL83S18D969H"),
        ("NL", "NL4495445B01", "NL004495445B01"),
        ("CH", "CHE-107.787.577 IVA", "CHE107787577IVA"),
        ("NO", "NO 995 525 828 MVA", "NO995525828MVA"),
        ("BR", "12.345.678/0001-95", "12345678000195"),
        ("BR", "529.982.247-25", "52998224725"),
        ("BR", "DE136695976", "DE136695976"),  # a company may be registered elsewhere
        ("IN", "27AAPFU0939F1ZV", "27AAPFU0939F1ZV"),
        ("MX", "XAXX010101000", "XAXX010101000"),
        ("US", "91-1144442", "911144442"),
        ("HU", "HU12892312", "HU12892312"),
        ("HU", "12892312-2-41", "12892312-2-41"),  # stdnum does not know the form within the country
        ("JP", "T1234567890123", "T1234567890123"),
        ("AQ", "anything", "anything"),
        ("FR", "380 129 866 48625", "38012986648625"),  # it has the form of a card number too
    ],
)
def test_a_tax_id_is_kept_without_separators(country: str, given: str, kept: str) -> None:
    assert compact(given, country) == kept
    assert compact(kept, country) == kept


@pytest.mark.parametrize(
    ("country", "given"),
    [
        ("DE", "DE136695977"),
        ("DE", "hello"),
        ("BR", "12.345.678/0001-96"),
        ("GR", "EL094259217"),
        ("GB", "XI110305879"),
        ("HU", "HU12892313"),
        ("LU", "LU1"),
        ("US", "1"),
        ("FR", "FR40303265045\u202e"),
        ("AQ", "38012986648625"),
        ("JP", "4242 4242 4242 4242"),
    ],
)
def test_another_text_is_refused(country: str, given: str) -> None:
    with pytest.raises(InvalidTaxId):
        compact(given, country)


def test_most_countries_of_trade_are_checked() -> None:
    assert {"AU", "BR", "CA", "CH", "CN", "DE", "ES", "FR", "GB", "IN", "IT", "MX", "US"} <= CHECKED_COUNTRIES
    assert CHECKED_COUNTRIES <= COUNTRIES


@given(
    st.sampled_from(sorted(COUNTRIES)),
    st.sampled_from(["", "AT", "DE", "EL", "EU", "IM", "XI", "CHE"]),
    st.text(st.characters() | st.sampled_from("0123456789ABX-./ \u0661\u00b2\uff11"), max_size=20),
)
def test_every_text_is_kept_or_refused(country: str, prefix: str, text: str) -> None:
    with contextlib.suppress(InvalidTaxId):
        assert len(compact(prefix + text, country)) <= 64
