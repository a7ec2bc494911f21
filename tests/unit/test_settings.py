"""Settings: any password works unencoded, and an unusable value is one sentence that does not repeat it."""

from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest
from pydantic_settings import BaseSettings
from sqlalchemy.engine import make_url

from chassis.settings import (
    BrokerSettings,
    DatabaseSettings,
    LogSettings,
    ServiceSettings,
    UnusableSettings,
    read,
)
from services.billing.settings import BillingSettings, ProviderSettings
from services.email.settings import EmailSettings
from services.email.smtp.server import Server
from services.shipment.settings import ShipmentSettings

EVERY = (BillingSettings, BrokerSettings, EmailSettings, ProviderSettings, ServiceSettings, ShipmentSettings)
PASSWORDS = [
    *("@", ":", "/", "%", "#", "?", "p@ss:w/o%r#d?", "%40", "a b", "[::1]", "&=+$,;'\"\\", "https://x@y/z"),
    "pä\u00df\u20ac",
]
LEAK = "canary-4711"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that holds only what the test sets."""
    for settings in EVERY:
        for name in settings.model_fields:
            monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


def unusable(settings: type[BaseSettings]) -> str:
    """The error's sentence."""
    with pytest.raises(UnusableSettings) as refusal:
        read(settings)
    assert LEAK not in str(refusal.value)
    assert refusal.value.__cause__ is None
    return str(refusal.value)


@pytest.mark.parametrize("password", PASSWORDS)
def test_any_password_may_be_given_unencoded_beside_its_address(
    environment: pytest.MonkeyPatch, password: str
) -> None:
    environment.setenv("DATABASE_URL", "postgresql://orderflow_order@postgres:5432/orderflow")
    environment.setenv("DATABASE_PASSWORD", password)
    environment.setenv("PROVIDER_DATABASE_URL", "postgresql://orderflow_provider@postgres/orderflow")
    environment.setenv("PROVIDER_DATABASE_PASSWORD", password)
    environment.setenv("CARRIER_DATABASE_URL", "postgresql://orderflow_carrier@postgres/orderflow")
    environment.setenv("CARRIER_DATABASE_PASSWORD", password)
    environment.setenv("BROKER_URL", "amqp://orderflow@rabbitmq:5672/")
    environment.setenv("BROKER_PASSWORD", password)
    environment.setenv("SMTP_URL", "smtp://ana@mail:2525?starttls")
    environment.setenv("SMTP_PASSWORD", password)
    billing = read(BillingSettings)
    url = make_url(billing.database_url)
    assert (url.username, url.password, url.host, url.port) == ("orderflow_order", password, "postgres", 5432)
    assert make_url(billing.provider_database_url or "").password == password
    assert make_url(read(ShipmentSettings).carrier_database_url).password == password
    parts = urlsplit(read(BrokerSettings).broker_url)
    assert (parts.username, unquote(parts.password or "")) == ("orderflow", password)
    assert (parts.hostname, parts.port, parts.path) == ("rabbitmq", 5672, "/")
    server = Server("mail", 2525, "ana", password, starttls=True)
    assert Server.parse(read(EmailSettings).smtp_url or "") == server


@pytest.mark.parametrize("password", PASSWORDS)
def test_a_percent_encoded_password_in_the_address_is_kept(
    environment: pytest.MonkeyPatch, password: str
) -> None:
    environment.setenv("DATABASE_URL", f"postgres://u:{quote(password, safe='')}@postgres/orderflow")
    environment.setenv("DATABASE_PASSWORD", "another")
    assert make_url(read(DatabaseSettings).database_url).password == password


def test_a_password_without_a_user_is_reported(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("BROKER_URL", "amqp://rabbitmq/")
    environment.setenv("BROKER_PASSWORD", LEAK)
    assert unusable(BrokerSettings) == "BROKER_URL names no user to whom the password could belong."


def test_passwords_are_not_shown(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("DATABASE_URL", "postgresql://u@postgres/orderflow")
    environment.setenv("DATABASE_PASSWORD", LEAK)
    environment.setenv("PROVIDER_DATABASE_URL", f"postgresql://u:{LEAK}@postgres/orderflow")
    environment.setenv("CARRIER_DATABASE_URL", f"postgresql://u:{LEAK}@postgres/orderflow")
    environment.setenv("BROKER_URL", f"amqp://u:{LEAK}@rabbitmq/")
    settings = read(BillingSettings), read(ShipmentSettings), read(BrokerSettings)
    assert LEAK not in repr(settings)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "postgres",
        f"mysql://u:{LEAK}@host/shop",
        f"postgresql+psycopg2://u:{LEAK}@host/shop",
        f"postgresql://u:p@host:{LEAK}/shop",
        f"postgresql://u:{LEAK}@host:5432",
    ],
)
def test_an_unusable_database_url_is_not_repeated(environment: pytest.MonkeyPatch, url: str) -> None:
    sentence = "DATABASE_URL: This is not like postgresql://user:password@host:5432/orderflow."
    environment.setenv("DATABASE_URL", url)
    assert unusable(DatabaseSettings) == (sentence if url else "DATABASE_URL: Field required.")
    with pytest.raises(UnusableSettings) as refusal:
        read(DatabaseSettings, database_url=url)
    assert str(refusal.value) == sentence


@pytest.mark.parametrize(
    "url",
    [
        "rabbitmq:5672",
        f"http://u:{LEAK}@rabbitmq",
        f"amqp://u:p/{LEAK}@rabbitmq/",
        f"amqp://u:p#{LEAK}@rabbitmq",
    ],
)
def test_an_unusable_broker_url_is_not_repeated(environment: pytest.MonkeyPatch, url: str) -> None:
    environment.setenv("BROKER_URL", url)
    assert unusable(BrokerSettings) == "BROKER_URL: This is not like amqp://user:password@host:5672/vhost."


@pytest.mark.parametrize(
    ("settings", "name", "value", "sentence"),
    [
        (LogSettings, "LOG_LEVEL", LEAK, "LOG_LEVEL: Input should be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'."),
        (LogSettings, "LOG_FORMAT", LEAK, "LOG_FORMAT: Input should be 'json' or 'text'."),
        (ServiceSettings, "DATABASE_POOL", LEAK, "DATABASE_POOL: Input should be a valid integer"),
        (ServiceSettings, "DATABASE_POOL", "1", "DATABASE_POOL: Input should be greater than or equal to 2."),
        (
            BillingSettings,
            "PAYMENT_PROVIDER",
            LEAK,
            "PAYMENT_PROVIDER: Input should be 'simulated' or 'stripe'.",
        ),
        (BillingSettings, "PAYMENT_PROVIDER", "stripe", "STRIPE_API_KEY is needed for the payment provider"),
        (ProviderSettings, "PAYMENT_PROVIDER", "stripe", "STRIPE_API_KEY is needed for the payment provider"),
        (BillingSettings, "SIMULATED_LATENCY_MS", "-1", "SIMULATED_LATENCY_MS: Input should be greater"),
        (
            BillingSettings,
            "STRIPE_BASE_URL",
            f"stripe/{LEAK}",
            "STRIPE_BASE_URL: This is not like https://host",
        ),
        (EmailSettings, "SMTP_URL", f"smtp://u:p/{LEAK}@mail", "SMTP_URL: A mail server is smtp[s]://"),
        (EmailSettings, "MAIL_FROM", LEAK, "MAIL_FROM: No mail can be sent to this address"),
        (EmailSettings, "MAIL_RECORD_ONLY", LEAK, "MAIL_RECORD_ONLY: Input should be a valid boolean"),
        (ShipmentSettings, "ORIGIN_COUNTRY", LEAK, "ORIGIN_COUNTRY: String should match pattern"),
    ],
)
def test_a_value_that_can_not_be_used_is_one_sentence(
    environment: pytest.MonkeyPatch, settings: type[BaseSettings], name: str, value: str, sentence: str
) -> None:
    environment.setenv("DATABASE_URL", "postgresql://u@postgres/orderflow")
    environment.setenv("PROVIDER_DATABASE_URL", "postgresql://u@postgres/orderflow")
    environment.setenv("CARRIER_DATABASE_URL", "postgresql://u@postgres/orderflow")
    environment.setenv("SMTP_URL", "smtp://mail")
    environment.setenv(name, value)
    said = unusable(settings)
    assert said.startswith(sentence)
    assert len(said.splitlines()) == 1


def test_a_missing_stripe_package_is_reported_in_a_sentence(environment: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> Any:
        return None

    environment.setattr("services.billing.settings.find_spec", missing)
    environment.setenv("DATABASE_URL", "postgresql://u@postgres/orderflow")
    environment.setenv("PAYMENT_PROVIDER", "stripe")
    environment.setenv("STRIPE_API_KEY", LEAK)
    assert "pip install 'stripe>=16'" in unusable(BillingSettings)
