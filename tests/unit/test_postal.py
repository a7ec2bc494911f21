"""Postal codes and states have the form that their country has."""

import pytest

from events.contracts import NO_POSTAL_CODE, Address
from events.countries import COUNTRIES
from sandbox.demo.examples import FOLDER, Example, load
from services.order.postal import broken_rules, has_form, is_state


def broken(
    country: str, postal_code: str = NO_POSTAL_CODE, state: str | None = None
) -> list[tuple[str, str]]:
    address = Address(line1="1", city="Somewhere", postal_code=postal_code, country=country, state=state)
    return [(str(rule.path[-1]), rule.code) for rule in broken_rules(address, "shipping_address")]


@pytest.mark.parametrize(
    ("country", "postal_code"),
    [
        ("BR", "01304-001"),
        ("BR", "01304001"),
        ("CA", "H3A 1H6"),
        ("CH", "8001"),
        ("CH", "CH-8001"),
        ("AT", "A-1010"),
        ("DE", "70173"),
        ("DE", "D-70173"),
        ("FR", "F-75008"),
        ("IN", "560 001"),
        ("GB", "NW1 6XE"),
        ("GB", "nw16xe"),
        ("IE", "D02 AF30"),
        ("IE", NO_POSTAL_CODE),
        ("JP", "150-0001"),
        ("LI", "FL-9490"),
        ("LV", "LV-1010"),
        ("LV", "1010"),
        ("NL", "1012 JS"),
        ("PL", "31-019"),
        ("PL", "31019"),
        ("SE", "111 22"),
        ("US", "94041-1234"),
        ("XK", "10000"),
        ("HK", "999077"),  # Hong Kong has no form
        ("AQ", "anything"),
    ],
)
def test_a_postal_code_of_the_countrys_form_is_accepted(country: str, postal_code: str) -> None:
    assert broken(country, postal_code) == []


@pytest.mark.parametrize(
    ("country", "postal_code"),
    [
        ("BR", "1304-001"),
        ("CA", "H3A 1HB"),
        ("DE", "7017"),
        ("DE", "70173 "),
        ("DE", "A-70173"),
        ("DE", "D70173"),
        ("IN", "560 00"),
        ("GB", "12345"),
        ("IE", "999077"),
        ("US", "9404"),
        ("US", "CH-8001"),
        ("US", "94041\n"),
        ("XK", "80000"),
    ],
)
def test_a_postal_code_of_another_form_is_refused(country: str, postal_code: str) -> None:
    assert broken(country, postal_code) == [("postal_code", "wrong_postal_code")]


@pytest.mark.parametrize(
    ("country", "state"),
    [
        ("BR", "SP"),
        ("BR", "São Paulo"),
        ("BR", "sao paulo"),
        ("BR", "BR-SP"),
        ("CA", "QC"),
        ("CN", "Guangdong"),
        ("CN", "Guangdong Province"),
        ("CN", "北京"),
        ("EG", "Cairo"),
        ("PE", "Lima"),
        ("TW", "Taipei"),
        ("UA", "Kyiv"),
        ("VN", "Hồ Chí Minh"),
        ("CA", "Québec"),
        ("CA", "Quebec"),
        ("IE", "Co. Dublin"),
        ("IE", "County Dublin"),
        ("IE", "Dublin"),
        ("IN", "Karnataka"),
        ("IN", "कर्नाटक"),
        ("IT", "RM"),
        ("JP", "東京都"),
        ("JP", "Tokyo"),
        ("KR", "Seoul"),
        ("MX", "CDMX"),
        ("US", "CA"),
        ("US", "california"),
        ("US", "US-CA"),
        ("DE", "Bavaria"),  # not listed: an address in Germany has no state
        ("AD", "anything"),
    ],
)
def test_a_states_code_or_name_is_accepted(country: str, state: str) -> None:
    assert broken(country, state=state) == []


@pytest.mark.parametrize(
    ("country", "state"),
    [
        ("BR", "XX"),
        ("BR", "-"),
        ("US", "SP"),
        ("CA", "US-CA"),
        ("JP", "California"),
        ("CN", "Province"),
        ("CN", "省"),
    ],
)
def test_another_state_is_refused(country: str, state: str) -> None:
    assert broken(country, state=state) == [("state", "unknown_state")]


@pytest.mark.parametrize("country", sorted(COUNTRIES))
def test_every_country_takes_addresses(country: str) -> None:
    for code in ("", "1", "70173", "x" * 64):
        assert has_form(code, country) in (True, False)
    assert is_state("\u0301", country) in (True, False)


def test_a_country_that_is_none_is_left_to_the_domain() -> None:
    assert broken("XX", "1", "state") == []


def test_the_message_has_an_example_and_quotes_nothing() -> None:
    address = Address(line1="1", city="Stuttgart", postal_code="canary", country="DE")
    [rule] = broken_rules(address, "billing_address")
    assert rule.path == ("billing_address", "postal_code")
    assert "26133" in rule.message
    assert "canary" not in rule.message


@pytest.mark.parametrize("example", load(FOLDER), ids=lambda example: example.name)
def test_the_addresses_of_the_examples_are_right(example: Example) -> None:
    address = example.order["shipping_address"]
    assert broken(example.country, address["postal_code"], address.get("state")) == []
