"""The seller in the settings: what may be given, and one sentence about what may not."""

import zoneinfo
from collections.abc import Iterator
from zoneinfo import ZoneInfo

import pytest

from chassis.settings import UnusableSettings, read
from events.contracts import NO_POSTAL_CODE, Address, Seller
from services.invoice.settings import InvoiceSettings

LEAK = "canary-4711"
ADDRESS = {"SELLER_LINE1": "Ladenstraße 3", "SELLER_CITY": "Berlin", "SELLER_COUNTRY": "DE"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that holds the database's address and only what the test sets."""
    for name in InvoiceSettings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("DATABASE_URL", "postgresql://u@postgres/orderflow")
    return monkeypatch


def seller_of(environment: pytest.MonkeyPatch, **given: str) -> Seller:
    for name, value in given.items():
        environment.setenv(name, value)
    return read(InvoiceSettings).seller


def test_without_settings_there_is_an_example_of_a_seller(environment: pytest.MonkeyPatch) -> None:
    assert seller_of(environment) == Seller(name="Example Shop")


def test_an_empty_setting_counts_as_unset(environment: pytest.MonkeyPatch) -> None:
    empty = {name.upper(): "" for name in InvoiceSettings.model_fields if name.startswith("seller_")}
    assert seller_of(environment, **empty) == Seller(name="Example Shop")


def test_every_setting_reaches_the_seller(environment: pytest.MonkeyPatch) -> None:
    seller = seller_of(
        environment,
        **ADDRESS,
        SELLER_NAME="Loja",
        SELLER_LINE2="2. OG",
        SELLER_STATE="BE",
        SELLER_POSTAL_CODE="10117",
        SELLER_EMAIL="loja@example.com",
        SELLER_TAX_ID="DE136695976",
        SELLER_REGISTRATION="HRB 12345, Berlin",
        SELLER_TIME_ZONE="Europe/Berlin",
    )
    assert seller == Seller(
        name="Loja",
        address=Address(
            line1="Ladenstraße 3", line2="2. OG", city="Berlin", state="BE", postal_code="10117", country="DE"
        ),
        email="loja@example.com",
        tax_id="DE136695976",
        registration="HRB 12345, Berlin",
        time_zone="Europe/Berlin",
    )


def test_an_address_may_have_no_postal_code(environment: pytest.MonkeyPatch) -> None:
    address = seller_of(environment, **ADDRESS).address
    assert address is not None
    assert address.postal_code == NO_POSTAL_CODE


@pytest.mark.parametrize(
    "part", [*ADDRESS, "SELLER_LINE2", "SELLER_STATE", "SELLER_POSTAL_CODE"], ids=str.lower
)
def test_a_part_of_an_address_alone_is_refused(environment: pytest.MonkeyPatch, part: str) -> None:
    environment.setenv(part, ADDRESS.get(part, "1"))
    with pytest.raises(UnusableSettings) as refusal:
        read(InvoiceSettings)
    assert str(refusal.value) == "A seller's address needs SELLER_LINE1, SELLER_CITY and SELLER_COUNTRY."


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("SELLER_NAME", " ", "SELLER_NAME: This must be one line of visible text."),
        ("SELLER_NAME", "\u200b\u2060", "SELLER_NAME: This must be one line of visible text."),
        ("SELLER_NAME", f"{LEAK}\nLtd", "SELLER_NAME: This must be one line of visible text."),
        ("SELLER_NAME", f"{LEAK}\u202e", "SELLER_NAME: This must be one line of visible text."),
        ("SELLER_NAME", LEAK * 20, "SELLER_NAME: String should have at most 200 characters."),
        ("SELLER_TAX_ID", LEAK * 20, "SELLER_TAX_ID: String should have at most 64 characters."),
        ("SELLER_EMAIL", LEAK, "SELLER_EMAIL: This is not like shop@example.com."),
        (
            "SELLER_EMAIL",
            f"{LEAK}@example.com, b@example.com",
            "SELLER_EMAIL: This is not like shop@example.com.",
        ),
        ("SELLER_COUNTRY", LEAK, "SELLER_COUNTRY: This is no ISO 3166-1 alpha-2 country code, such as BR."),
        *(
            (
                "SELLER_TIME_ZONE",
                name,
                "SELLER_TIME_ZONE: This is no IANA time zone, such as America/Sao_Paulo.",
            )
            for name in (
                *("Berlin", "America", "UTC+3", "zone.tab", "localtime"),
                *("../etc/passwd", "/etc/localtime", LEAK),
            )
        ),
    ],
)
def test_a_value_that_can_not_be_used_is_one_sentence_without_it(
    environment: pytest.MonkeyPatch, name: str, value: str, sentence: str
) -> None:
    environment.setenv(name, value)
    with pytest.raises(UnusableSettings) as refusal:
        read(InvoiceSettings)
    assert str(refusal.value) == sentence


@pytest.fixture
def no_time_zones_of_the_system() -> Iterator[None]:
    zoneinfo.reset_tzpath(to=())
    ZoneInfo.clear_cache()
    yield
    zoneinfo.reset_tzpath()


@pytest.mark.usefixtures("no_time_zones_of_the_system")
def test_time_zones_are_known_where_the_system_has_none(environment: pytest.MonkeyPatch) -> None:
    """As in small images and in Lambda functions: the package tzdata has them."""
    assert seller_of(environment, SELLER_TIME_ZONE="Pacific/Auckland").time_zone == "Pacific/Auckland"
