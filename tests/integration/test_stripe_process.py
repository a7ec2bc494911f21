"""`python -m sandbox.stripe` as a process: its answers outlive it, and it misbehaves only as planned."""

import asyncio
import os
import re
import sqlite3
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from sandbox.stripe import control, ledger
from sandbox.stripe.faults import Behaviour, Step, Timing
from sandbox.stripe.ledger import LedgerInUse, UnreadableLedger
from tests.stripe_server import stripe_server

ROOT = Path(__file__).parents[2]
INTENTS = "/v1/payment_intents"


@asynccontextmanager
async def process(*arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Starts the command and waits until it serves; yields the process and its address."""
    server = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "sandbox.stripe", "--port", "0", *arguments),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'libs'}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert server.stdout
    try:
        line = (await server.stdout.readline()).decode()
        address = re.search(r"http://[0-9.:]+", line)
        assert address, line
        yield server, address[0]
    finally:
        if server.returncode is None:
            server.terminate()
        await server.communicate()


async def pay(http: httpx.AsyncClient, key: str, order_id: object) -> dict[str, object]:
    """An intent, created and confirmed under these keys."""
    form = {
        "amount": "4657",
        "currency": "brl",
        "payment_method": "pm_card_visa",
        "metadata[order_id]": str(order_id),
    }
    created = await http.post(INTENTS, data=form, headers={"Idempotency-Key": key})
    path = f"{INTENTS}/{created.json()['id']}/confirm"
    answer: dict[str, object] = (await http.post(path, headers={"Idempotency-Key": f"{key}-c"})).json()
    return answer


def client(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, trust_env=False, timeout=30)


async def test_what_was_answered_is_in_the_ledger_after_sigkill_and_so_are_its_keys(tmp_path: Path) -> None:
    file = tmp_path / "new" / "ledger.sqlite"
    told: dict[str, dict[str, object]] = {}

    async def pay_until_it_dies(http: httpx.AsyncClient, worker: int) -> None:
        for number in range(10_000):
            key = f"{worker}-{number}"
            try:
                told[key] = await pay(http, key, key)
            except (httpx.HTTPError, ValueError):
                return

    async with process("--ledger", str(file), "--scripted") as (server, url), client(url) as http:
        paying = [asyncio.create_task(pay_until_it_dies(http, worker)) for worker in range(8)]
        while len(told) < 100:
            await asyncio.sleep(0.01)
        server.kill()
        await asyncio.gather(*paying)
    assert {answer["status"] for answer in told.values()} == {"succeeded"}
    async with process("--ledger", str(file), "--scripted") as (_, url), client(url) as http:
        for key, answer in list(told.items())[-100:]:
            assert await pay(http, key, key) == answer
        async with control.connect(url) as controls:
            totals = await controls.totals()
    assert len(told) <= totals.charges <= len(told) + 8
    assert totals.captured == {"brl": 4657 * totals.charges}
    assert totals.charged_twice == []


async def test_one_process_has_the_ledger(tmp_path: Path) -> None:
    file = tmp_path / "ledger.sqlite"
    with ledger.opened(file):
        with pytest.raises(LedgerInUse), ledger.opened(file):
            pass
        second = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "sandbox.stripe", "--port", "0", "--ledger", str(file)),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'libs'}"},
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await second.communicate()
    assert second.returncode == 1
    assert said.decode().startswith("Another process has the ledger.")


@pytest.mark.parametrize("content", [b"no ledger at all, but long enough to be one" * 100, None])
def test_a_file_that_is_no_ledger_of_this_version_is_refused_and_left_alone(
    tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "ledger.sqlite"
    if content:
        file.write_bytes(content)
    else:
        with sqlite3.connect(file) as newer:
            newer.execute("PRAGMA user_version = 2")
        newer.close()
    before = file.read_bytes()
    with pytest.raises(UnreadableLedger), ledger.opened(file):
        pass
    if content:
        assert file.read_bytes() == before


async def test_only_the_api_key_that_it_was_given_is_let_in(tmp_path: Path) -> None:
    arguments = ("--ledger", str(tmp_path / "ledger.sqlite"), "--api-key", "sk_test_1")
    async with process(*arguments) as (_, url), client(url) as http:
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.get(INTENTS)).status_code == 401
        assert (await http.get(INTENTS, headers={"Authorization": "Bearer sk_test_2"})).status_code == 401
        assert (await http.get(INTENTS, headers={"Authorization": "Bearer sk_test_1"})).status_code == 200


async def test_a_server_that_is_not_scripted_has_no_control_api(tmp_path: Path) -> None:
    async with process("--ledger", str(tmp_path / "ledger.sqlite")) as (_, url), client(url) as http:
        assert (await http.post("/_control/forget_keys")).status_code == 404


async def statuses(http: httpx.AsyncClient, number: int) -> Sequence[int | str]:
    """Sends that many requests, one after another, and returns their statuses or errors."""
    answers: list[int | str] = []
    for _ in range(number):
        try:
            answers.append((await http.get(INTENTS)).status_code)
        except httpx.HTTPError as error:
            answers.append(type(error).__name__)
    return answers


async def test_it_does_what_it_is_told_and_counts_what_had_its_effect() -> None:
    async with (
        stripe_server() as server,
        client(server.url) as http,
        control.connect(server.url) as controls,
    ):
        assert await controls.effects() == []
        await controls.script(Behaviour.ERROR, step=Step.LIST, times=2)
        await controls.script(Behaviour.RESET, step=Step.LIST)
        assert await statuses(http, 4) == [500, 500, "ReadError", 200]
        await controls.outage(Behaviour.UNAVAILABLE, 600)
        assert await statuses(http, 2) == [503, 503]
        await controls.outage(Behaviour.REFUSED, 600)
        assert await statuses(http, 2) == ["ReadError", "ReadError"]
        await controls.outage(Behaviour.REFUSED, 0)
        assert await statuses(http, 1) == [200]
        order_id = uuid4()
        await controls.script(Behaviour.SAVED_ERROR_AFTER, step=Step.CREATE, order_id=order_id)
        await pay(http, "another", uuid4())
        assert await controls.happened(Behaviour.SAVED_ERROR_AFTER) == 0
        with pytest.raises(KeyError):
            await pay(http, "a", order_id)
        assert await controls.happened(Behaviour.SAVED_ERROR_AFTER, order_id) == 1
        assert (await controls.order(order_id)).captured == []
        assert [intent.status for intent in (await controls.order(order_id)).intents] == [
            "requires_confirmation"
        ]
        assert await controls.happened(Behaviour.ERROR) == 2
        assert await controls.happened(Behaviour.RESET) == 1
        assert await controls.happened(Behaviour.UNAVAILABLE) == 2
        assert await controls.happened(Behaviour.REFUSED) == 2


async def test_a_rate_with_a_seed_repeats() -> None:
    async with (
        stripe_server() as server,
        client(server.url) as http,
        control.connect(server.url) as controls,
    ):
        runs = []
        for seed in (7, 7, 8):
            await controls.rate(Behaviour.ERROR, step=Step.LIST, share=0.4, seed=seed)
            runs.append(await statuses(http, 40))
            await controls.reset()
        assert await statuses(http, 5) == [200] * 5
        assert runs[0] == runs[1] != runs[2]
        assert await controls.happened(Behaviour.ERROR) == sum(run.count(500) for run in runs)


async def test_what_it_is_told_must_make_sense() -> None:
    async with (
        stripe_server() as server,
        client(server.url) as http,
        control.connect(server.url) as controls,
    ):
        answer = await http.post("/_control/scripts", content=b'{"behaviour": "explode", "step": "list"}')
        assert (answer.status_code, "explode" in answer.text) == (400, True)
        await controls.set_timing(Timing(key_seconds=0))
        await pay(http, "a", order_id := uuid4())
        await pay(http, "a", order_id)
        assert (await controls.totals()).charged_twice == [str(order_id)]
        assert (await controls.order(order_id)).captured == [4657, 4657]
