"""How long a function takes to start, and what it costs: `python -m tests.cold_start [ROUNDS]`.

Each function is a process under AWS's own runtime client, with PostgreSQL at TEST_POSTGRES_URL and moto for
AWS. The figures are medians of some fresh processes, in milliseconds of the clock, and in brackets of the
function's own processor time, as Linux counts it. A container's download, its network interface and Secrets
Manager are not in it.
"""

import asyncio
import json
import os
import sys
import time
import uuid
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from events import envelope
from ops import migrate
from tests.aws_server import CREDENTIALS, Cloud, aws_server
from tests.conftest import new_database
from tests.e2e.runtime_api import RuntimeApi, runtime_api
from tests.factories import one_of_each, order_created
from tests.integration.mail_server import mail_server
from tests.lambda_functions import BINDINGS, http_api, queue_event, start
from tests.order_service import a_new_order

MESSAGES: Final = 10
"""Messages in an invocation from a queue, of one event each: as many as the template allows."""
WARM: Final = 30
"""Invocations of a warm container, of which the average is reported."""


def _post() -> object:
    return http_api(
        "POST", "/orders", json.dumps(a_new_order()), headers={"content-type": "application/json"}
    )


def _invoices() -> object:
    return _messages([one_of_each()["INVOICE_CREATED"] for _ in range(MESSAGES)])


def _orders() -> object:
    return _messages([order_created() for _ in range(MESSAGES)])


def _messages(events: list[Any]) -> object:
    return queue_event(*(envelope.messages([event])[0].body.decode() for event in events))


EVENTS: Final[Mapping[str, Callable[[], object]]] = {"order": _post, "billing": _invoices, "email": _orders}


@dataclass(frozen=True)
class Measured:
    """Milliseconds of the clock, and of the function's processor, of one container."""

    init: tuple[float, float]
    """From the start of the process until it asks for its first event."""
    first: tuple[float, float]
    """Its first invocation."""
    warm: tuple[float, float]
    """An invocation later on."""


async def _measure(service: str, environment: Mapping[str, str]) -> Measured:
    with runtime_api() as api:
        begun = time.perf_counter()
        process = await start(service, api.address, environment)
        try:
            await asyncio.to_thread(api.polls.get, timeout=60)
            init = (time.perf_counter() - begun) * 1000, _processor(process)
            first = await _invoke(api, process, [EVENTS[service]()])
            warm = await _invoke(api, process, [EVENTS[service]() for _ in range(WARM)])
        finally:
            process.kill()
            await process.wait()
    return Measured(init, first, warm)


async def _invoke(api: RuntimeApi, process: Process, events: Sequence[object]) -> tuple[float, float]:
    """The average time of one of these events. Each has to succeed."""
    clock, processor = time.perf_counter(), _processor(process)
    for event in events:
        answer = await asyncio.to_thread(api.invoke, event)
        assert answer.get("statusCode") == 201 or answer == {"batchItemFailures": []}, answer
    passed = (time.perf_counter() - clock) * 1000
    return passed / len(events), (_processor(process) - processor) / len(events)


def _processor(process: Process) -> float:
    """Milliseconds of processor time that it has used so far: `man 5 proc`, utime and stime."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def _medians(laps: list[tuple[float, float]]) -> tuple[float, float]:
    clock, processor = zip(*laps, strict=True)
    return median(clock), median(processor)


@asynccontextmanager
async def _environments() -> AsyncIterator[dict[str, dict[str, str]]]:
    """Each function's environment, with the resources that it names."""
    with ExitStack() as stack:
        endpoint = stack.enter_context(aws_server())
        cloud = Cloud(endpoint, f"cold-{uuid.uuid4().hex[:8]}-", visibility_seconds=30)
        await asyncio.to_thread(cloud.declare, BINDINGS)
        async with new_database(os.environ["TEST_POSTGRES_URL"]) as owner, mail_server() as mails:
            urls = {}
            for service in (*EVENTS, "provider", "carrier"):
                await migrate.migrate_service(owner, service, password=service)
                urls[service] = migrate.url_for(owner, service, password=service)
            yield {
                service: CREDENTIALS
                | {
                    "AWS_ENDPOINT_URL": endpoint,
                    "TOPIC_ARN": cloud.topic_arn,
                    "DEAD_LETTER_QUEUE_URL": cloud.address_of(f"{service}-dead"),
                    "DATABASE_URL": urls[service],
                    "PROVIDER_DATABASE_URL": urls["provider"],
                    "CARRIER_DATABASE_URL": urls["carrier"],
                    "SMTP_URL": mails.url,
                    "LOG_LEVEL": "WARNING",
                }
                for service in EVENTS
            }


async def main(rounds: int) -> None:
    """Measures every function so many times, in turns, and prints a table."""
    async with _environments() as environments:
        found: dict[str, list[Measured]] = {service: [] for service in EVENTS}
        for _ in range(rounds):
            for service, measured in found.items():
                measured.append(await _measure(service, environments[service]))
    lines = ["| function | init | first invocation | warm |", "| --- | --- | --- | --- |"]
    for service, measured in found.items():
        laps = [[getattr(m, part) for m in measured] for part in ("init", "first", "warm")]
        cells = (f"{clock:.0f} ({processor:.1f})" for clock, processor in map(_medians, laps))
        lines.append(f"| {service} | {' | '.join(cells)} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
