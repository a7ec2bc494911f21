"""The Lambda package and image, built as for a deployment, handle events in a bare container."""

import json
import os
import platform
import subprocess
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from chassis import revisions
from ops.migrate import HISTORIES
from tests.e2e.runtime_api import RuntimeApi, runtime_api

ROOT: Final = Path(__file__).resolve().parents[2]
ARCHITECTURE: Final = {"x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}[platform.machine()]
SANDBOX: Final = ("--rm", "--network", "host", "--read-only", "--cap-drop", "ALL", "--user", "10001:10001")
PYTHON: Final = os.environ.get("PYTHON_IMAGE", "python:3.13-slim")
INVOKE: Final = """
import importlib, json, sys
module, _, name = sys.argv[1].rpartition(".")
json.dump(getattr(importlib.import_module(module), name)(json.loads(sys.argv[2]), None), sys.stdout)
"""


def run(*command: str, environment: dict[str, str] | None = None, seconds: float = 300) -> str:
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, unpacked as Lambda does."""
    run("make", "lambda", f"ARCH={ARCHITECTURE}", seconds=600)
    folder = tmp_path_factory.mktemp("task")
    with zipfile.ZipFile(ROOT / "dist" / "lambda.zip") as archive:
        archive.extractall(folder)
    folder.chmod(0o755)
    folder.parent.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    name = f"orderflow-lambda:{uuid.uuid4().hex[:8]}"
    environment = {**os.environ, "LAMBDA_IMAGE": name}
    subprocess.run(
        ["make", "lambda-image"], cwd=ROOT, env=environment, capture_output=True, timeout=900, check=True
    )
    yield name
    subprocess.run(["docker", "image", "rm", name], capture_output=True, timeout=60, check=False)


@contextmanager
def function(image: str, handler: str, environment: dict[str, str]) -> Iterator[RuntimeApi]:
    """Starts a function in a container of the image, with this Runtime API."""
    name = f"orderflow-lambda-{uuid.uuid4().hex[:8]}"
    with runtime_api() as api:
        settings = environment | {"AWS_LAMBDA_RUNTIME_API": api.address, "AWS_DEFAULT_REGION": "us-east-1"}
        variables = [f"--env={key}={value}" for key, value in settings.items()]
        run("docker", "run", "--detach", "--name", name, *SANDBOX, *variables, image, handler)
        try:
            yield api
        finally:
            subprocess.run(["docker", "rm", "--force", name], capture_output=True, timeout=60, check=False)


def invoke(package: Path, handler: str, event: object, environment: dict[str, str]) -> Any:
    """The handler's response, in a container with Python and the package."""
    settings = {"PYTHONDONTWRITEBYTECODE": "1", "AWS_DEFAULT_REGION": "us-east-1"} | environment
    variables = [f"--env={key}={value}" for key, value in settings.items()]
    mount = ["--volume", f"{package}:/var/task:ro", "--workdir", "/var/task"]
    return json.loads(
        run(
            "docker",
            "run",
            *SANDBOX,
            *mount,
            *variables,
            PYTHON,
            "python",
            "-c",
            INVOKE,
            handler,
            json.dumps(event),
        )
    )


@pytest.fixture
async def owned_database(fresh_database: str) -> str:
    """URL of a database whose owner is like that of RDS: no superuser, but may create roles."""
    url = make_url(fresh_database)
    owner = f"{url.database}_owner"
    server = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with server.connect() as connection:
        await connection.execute(text(f"CREATE ROLE \"{owner}\" LOGIN CREATEROLE PASSWORD 'owner'"))
        await connection.execute(text(f'ALTER DATABASE "{url.database}" OWNER TO "{owner}"'))
    await server.dispose()
    owned = url.set(drivername="postgresql", username=owner, password="owner")
    return owned.render_as_string(hide_password=False)


REVISIONS: Final = {schema: revisions.head(history) for schema, history in HISTORIES.items()}


async def test_the_package_migrates_a_database(package: Path, owned_database: str) -> None:
    assert invoke(package, "ops.aws_lambda.handler", {}, {"DATABASE_URL": owned_database}) == REVISIONS


async def test_the_image_migrates_a_database_through_the_runtime_client(
    image: str, owned_database: str
) -> None:
    with function(image, "ops.aws_lambda.handler", {"DATABASE_URL": owned_database}) as api:
        assert api.invoke({}) == REVISIONS
        assert api.invoke({}) == REVISIONS, "it is safe to repeat"


HEALTHZ: Final = {
    "version": "2.0",
    "routeKey": "GET /healthz",
    "rawPath": "/healthz",
    "rawQueryString": "",
    "headers": {"host": "api.example"},
    "requestContext": {
        "http": {"method": "GET", "path": "/healthz", "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1"},
        "stage": "$default",
    },
    "isBase64Encoded": False,
}
"""A request from an HTTP API, in payload format 2.0."""
UNREADABLE: Final = {
    "Records": [
        {
            "messageId": "059f36b4-87a3-44ab-83d2-661975830a7d",
            "receiptHandle": "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a",
            "body": "not a CloudEvents batch",
            "attributes": {"ApproximateReceiveCount": "1"},
            "messageAttributes": {},
            "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:orderflow-order",
            "awsRegion": "us-east-1",
        }
    ]
}
"""An undecodable message; the dead-letter queue can't be reached, so it must be delivered again."""


async def test_a_service_in_the_image_answers_requests_and_returns_an_undecodable_message(
    image: str, owned_database: str
) -> None:
    with function(image, "ops.aws_lambda.handler", {"DATABASE_URL": owned_database}) as api:
        api.invoke({})
    url = make_url(owned_database)
    order = url.set(username=f"{url.database}_order", password="order")
    environment = {
        "DATABASE_URL": order.render_as_string(hide_password=False),
        "TOPIC_ARN": "arn:aws:sns:us-east-1:123456789012:OrderEvents",
        "QUEUE_URL": "http://127.0.0.1:9/123456789012/orderflow-order",
        "DEAD_LETTER_QUEUE_URL": "http://127.0.0.1:9/123456789012/orderflow-order-dead",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
    }
    with function(image, "services.order.aws_lambda.handler", environment) as api:
        answer = api.invoke(HEALTHZ)
        assert (answer["statusCode"], json.loads(answer["body"])) == (200, {"status": "ok"})
        [failure] = api.invoke(UNREADABLE)["batchItemFailures"]
        assert failure["itemIdentifier"] == UNREADABLE["Records"][0]["messageId"]


async def test_a_refused_login_is_reported(image: str, owned_database: str) -> None:
    unknown = {"DATABASE_URL": owned_database.replace(":owner@", ":another@")}
    with function(image, "ops.aws_lambda.handler", unknown) as api, pytest.raises(AssertionError) as failure:
        api.invoke({})

    assert "refuses the connection" in str(failure.value)
