"""The compose file passes on every setting that the code reads, and `.env.example` names every one."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic_settings import BaseSettings

from chassis.settings import BrokerSettings, DatabaseSettings, LogSettings, ServiceSettings
from ops.migrate import ROLES
from ops.services import SERVICES, load
from services.billing.settings import ProviderSettings

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
OURS = (*SERVICES, "reconcile", "orderflow", "migrate", "stripe")
FIXED = {
    "HOST", "PORT",  # the image's
    "MAIL_FOLDER",   # a container's folders are read-only
}  # fmt: skip
OF_THE_BUILD = re.compile("PIP_|.*_PROXY$|SSL_CERT_FILE|REQUESTS_CA_BUNDLE")


def environment(service: str) -> dict[str, str | None]:
    found = COMPOSE["services"][service]["environment"]
    assert isinstance(found, dict)
    return found


def names(*settings: Any) -> set[str]:
    assert all(issubclass(each, BaseSettings) for each in settings)
    return {name.upper() for each in settings for name in each.model_fields} - FIXED


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_gets_exactly_the_settings_that_it_reads(service: str) -> None:
    assert environment(service).keys() == names(load(service).settings, BrokerSettings)


def test_the_commands_get_every_setting_that_they_read() -> None:
    every = names(LogSettings, DatabaseSettings, BrokerSettings)
    read = {
        "reconcile": every,
        "migrate": every | {f"{role.upper()}_DB_PASSWORD" for role in ROLES},
        "orderflow": every | names(ProviderSettings) | {"ORDERFLOW_ACTOR", "PROVIDER_DB_PASSWORD"},
    }
    for service, settings in read.items():
        told = environment(service).keys()
        assert settings <= told, service
        assert told <= settings | names(ServiceSettings), service  # they share a block with the services


@pytest.mark.parametrize("service", OURS)
def test_no_address_has_a_password_in_it(service: str) -> None:
    for name, value in environment(service).items():
        if name.endswith("_URL") and value:
            assert "PASSWORD" not in value, name


def test_the_example_names_every_setting_of_the_compose_file() -> None:
    interpolated = set(re.findall(r"(?<!\$)\$\{([A-Z0-9_]+)", TEXT))
    passed_on = {
        name
        for service in COMPOSE["services"].values()
        for name, value in service.get("environment", {}).items()
        if value is None
    }
    build_arguments = {"PYTHON_IMAGE"}
    settings = {name for name in interpolated | passed_on if not OF_THE_BUILD.match(name)}
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert set(re.findall(r"^#([A-Z0-9_]+)=", example, re.MULTILINE)) == settings | build_arguments
