"""Settings kept in Secrets Manager, read from moto's server by the real client."""

import json
from collections.abc import Iterator

import boto3
import pytest
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer
from types_boto3_secretsmanager import SecretsManagerClient

from chassis.settings import DatabaseSettings, read
from events.aws import secrets


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[SecretsManagerClient]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    yield boto3.client("secretsmanager")
    server.stop()


def kept(manager: SecretsManagerClient, name: str, text: str) -> str:
    return manager.create_secret(Name=name, SecretString=text)["ARN"]


def test_a_secret_becomes_the_setting_that_names_it(manager: SecretsManagerClient) -> None:
    place = kept(manager, "smtp", "smtps://user:p@mail.example:465\n")

    assert secrets.resolve({"SMTP_URL_SECRET_ARN": place, "MAIL_FROM": "a@b.example"}) == {
        "SMTP_URL": "smtps://user:p@mail.example:465"
    }


def test_a_password_goes_into_the_address_beside_it(
    manager: SecretsManagerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = "p@ss/w:rd%"
    place = kept(manager, "database", json.dumps({"username": "orderflow_order", "password": password}))
    environment = {
        "DATABASE_URL": "postgresql://orderflow_order@db.example:5432/orderflow",
        "DATABASE_PASSWORD_SECRET_ARN": place,
        "ORDER_DB_PASSWORD_SECRET_ARN": place,
    }

    resolved = secrets.resolve(environment)
    assert resolved == {"DATABASE_PASSWORD": password, "ORDER_DB_PASSWORD": password}
    for name, value in (environment | resolved).items():
        monkeypatch.setenv(name, value)
    assert (
        read(DatabaseSettings).database_url
        == "postgresql+asyncpg://orderflow_order:p%40ss%2Fw%3Ard%25@db.example:5432/orderflow"
    )


def test_without_secrets_secrets_manager_is_not_called() -> None:
    assert secrets.resolve({"DATABASE_URL": "postgresql://u@h/d"}) == {}


def test_a_secret_that_is_not_there_stops_the_process(manager: SecretsManagerClient) -> None:
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        secrets.resolve(
            {"STRIPE_API_KEY_SECRET_ARN": "arn:aws:secretsmanager:us-east-1:123456789012:secret:x"}
        )
