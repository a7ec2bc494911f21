"""Every form of the system reports an unusable setting in one sentence, without traceback or value."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from chassis.function import Function
from ops.services import SERVICES, load

ROOT = Path(__file__).resolve().parents[2]
LEAK = "canary-4711"
GOOD = {
    "DATABASE_URL": "postgresql://orderflow@127.0.0.1:9/orderflow",
    "BROKER_URL": "amqp://orderflow@127.0.0.1:9/",
    "PROVIDER_DATABASE_URL": "postgresql://orderflow_provider@127.0.0.1:9/orderflow",
    "CARRIER_DATABASE_URL": "postgresql://orderflow_carrier@127.0.0.1:9/orderflow",
    "SMTP_URL": "smtp://127.0.0.1:9",
}
A_DATABASE = "DATABASE_URL: This is not like postgresql://user:password@host:5432/orderflow."
A_LEVEL = "LOG_LEVEL: Input should be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'."
A_BROKER = "BROKER_URL: This is not like amqp://user:password@host:5672/vhost."
A_KEY = "STRIPE_API_KEY is needed for the payment provider Stripe."
A_PROVIDER = "PAYMENT_PROVIDER: Input should be 'simulated' or 'stripe'."


async def said(*command: str, **environment: str) -> str:
    """The output of a command, which has to end with status 1."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", *command),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=ROOT,
        env=os.environ | GOOD | environment,
    )
    async with asyncio.timeout(30):
        output, _ = await process.communicate()
    assert process.returncode == 1, output
    return output.decode()


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_reports_it_and_ends(service: str) -> None:
    assert await said(f"services.{service}.main", LOG_LEVEL=LEAK) == f"{A_LEVEL}\n"


async def test_the_invoice_service_says_what_is_wrong_with_its_seller() -> None:
    zone = await said("services.invoice.main", SELLER_TIME_ZONE=LEAK)
    assert zone == "SELLER_TIME_ZONE: This is no IANA time zone, such as America/Sao_Paulo.\n"
    address = await said("services.invoice.main", SELLER_CITY=LEAK)
    assert address == "A seller's address needs SELLER_LINE1, SELLER_CITY and SELLER_COUNTRY.\n"


async def test_a_service_says_what_is_wrong_with_its_addresses() -> None:
    database = await said("services.order.main", DATABASE_URL=f"postgresql://u:p@host:{LEAK}/shop")
    broker = await said("services.order.main", BROKER_URL=f"amqp://u:p/{LEAK}@rabbitmq/")
    assert (database, broker) == (f"{A_DATABASE}\n", f"{A_BROKER}\n")


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        (("migrate",), {"LOG_FORMAT": LEAK}, "LOG_FORMAT: Input should be 'json' or 'text'."),
        (("migrate",), {"BROKER_URL": LEAK}, A_BROKER),
        (("reconcile",), {"DATABASE_URL": LEAK}, A_DATABASE),
        (("reconcile",), {"BROKER_URL": f"amqp://u:p/{LEAK}@rabbitmq/"}, A_BROKER),
        (("audit",), {"PAYMENT_PROVIDER": LEAK}, A_PROVIDER),
        (
            ("audit",),
            {"PAYMENT_PROVIDER": "stripe"},
            A_KEY,
        ),
        (("stuck",), {"DATABASE_URL": f"postgresql://u:p@host:{LEAK}/shop"}, A_DATABASE),
        (("dead", "list"), {"BROKER_URL": LEAK}, A_BROKER),
        (("replay", "--service", "email", "--since", "1h"), {"DATABASE_URL": LEAK}, A_DATABASE),
    ],
)
async def test_a_command_reports_it_and_ends(
    arguments: tuple[str, ...], environment: dict[str, str], sentence: str
) -> None:
    assert await said("ops.main", *arguments, **environment) == f"{sentence}\n"


async def test_the_server_that_answers_as_stripe_does_says_it_and_ends() -> None:
    assert await said("sandbox.stripe", LOG_LEVEL=LEAK) == f"{A_LEVEL}\n"


class OneMinute:
    """The context of a Lambda invocation that may take a minute."""

    def get_remaining_time_in_millis(self) -> int:
        return 60_000


@pytest.mark.parametrize("missing", ["TOPIC_ARN", "DATABASE_URL"])
def test_a_function_reports_it_and_ends_its_container(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    for name, value in (GOOD | {"TOPIC_ARN": "arn:x", "DEAD_LETTER_QUEUE_URL": "https://x"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(missing)
    with pytest.raises(SystemExit) as ended:
        Function(load("order"))({}, OneMinute())
    assert ended.value.code == f"{missing}: Field required."
