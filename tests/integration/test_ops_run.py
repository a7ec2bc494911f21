"""`orderflow run`: one process that serves everything, and loses nothing however it ends."""

import asyncio
import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.embedded import EXAMPLES, database_of, finished, orderflow, postmaster_of, running
from tests.integration.mail_server import mail_server
from tests.stripe_server import stripe_server
from tests.waiting import eventually

ORDER = json.loads((EXAMPLES / "order.json").read_text("utf-8"))


async def place(api: httpx.AsyncClient, key: str) -> dict[str, Any]:
    answer = await api.post("/orders", json=ORDER, headers={"Idempotency-Key": key})
    assert answer.status_code == 201, answer.text
    placed: dict[str, Any] = answer.json()
    return placed


async def test_it_ships_an_order_refuses_a_second_run_on_its_folder_and_ends_well_on_ctrl_c(
    tmp_path: Path,
) -> None:
    state = tmp_path / "state"
    async with running(state) as (process, api):
        order = await finished(api, (await place(api, "one"))["id"])
        assert order["status"] == "SHIPPED"
        async with orderflow("run", folder=tmp_path, STATE="state", PORT="0") as second:
            assert await second.ended() == 1
        assert f"state is in use by another orderflow, process {process.process.pid}:" in second.said
        assert len(second.said.splitlines()) == 1
        process.send(signal.SIGINT)
        assert await process.ended() == 0
    assert "Stopped." in process.said
    assert "Traceback" not in process.said + (state / "orderflow.log").read_text()
    assert not (state / "postgres" / "data" / "postmaster.pid").exists()


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the stripe SDK's own doing
async def test_payments_and_mails_go_where_the_environment_says(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with stripe_server() as server, mail_server() as mails:
        outside = {
            "PAYMENT_PROVIDER": "stripe",
            "STRIPE_API_KEY": "sk_test_1",
            "STRIPE_BASE_URL": server.url,
            "SMTP_URL": mails.url,
            "ORIGIN_COUNTRY": "PT",
            "LOG_FORMAT": "json",
        }
        async with running(state, **outside) as (process, api):
            order = await finished(api, (await place(api, "one"))["id"])
            assert server.captured(order["id"])
            await mails.received(4)
            await process.says("Mails: .*at the mail server of SMTP_URL")
    assert order["shipment"]["tracking_number"].endswith("PT")
    assert not list((state / "mails").iterdir())
    assert all(json.loads(line) for line in (state / "orderflow.log").read_text().splitlines())


async def test_mails_can_go_to_another_folder_or_nowhere(tmp_path: Path) -> None:
    async def shipped(name: str, **outside: str) -> Path:
        async with running(tmp_path / name, **outside) as (_, api):
            await finished(api, (await place(api, "one"))["id"])
        return tmp_path / name / "mails"

    own = await shipped("one", MAIL_FOLDER=str(tmp_path / "elsewhere"))
    recorded = await shipped("two", MAIL_RECORD_ONLY="true")
    assert list((tmp_path / "elsewhere").glob("*.eml"))
    assert not list(own.iterdir()) + list(recorded.iterdir())


async def test_the_curl_line_that_it_prints_places_an_order_past_any_proxy(tmp_path: Path) -> None:
    proxy = {"http_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    async with running(tmp_path / "state", **proxy) as (process, _):
        await process.says("Ctrl-C")
        line = process.said.partition("Place an order:")[2].partition("Follow it")[0].strip()
        curl = await asyncio.create_subprocess_shell(
            line, stdout=asyncio.subprocess.PIPE, cwd=tmp_path, env=os.environ | proxy
        )
        answer, _ = await curl.communicate()
    assert answer.startswith(b"HTTP/1.1 201"), answer


async def test_killed_amid_a_hundred_orders_it_continues_and_does_nothing_twice(
    tmp_path: Path,
) -> None:
    state, keys = tmp_path / "state", [f"key-{n}" for n in range(100)]
    async with running(state) as (process, api):
        placing = [asyncio.create_task(place(api, key)) for key in keys]
        answered = []
        for placed in asyncio.as_completed(placing):
            answered.append((await placed)["id"])
            if len(answered) == 50:
                break
        process.send(signal.SIGKILL)
        await process.ended()
        await asyncio.gather(*placing, return_exceptions=True)
    async with database_of(state) as database:  # the database outlives its owner
        shipped = await database.fetchval("SELECT count(*) FROM shipment.outbox WHERE type = 'SHIPPED'")
    assert shipped < 100

    async with running(state) as (process, api):
        orders = [await place(api, key) for key in keys]  # a client without an answer repeats its request
        assert {order["id"] for order in orders} >= set(answered)
        assert len({order["id"] for order in orders}) == 100
        ends = await asyncio.gather(*(finished(api, order["id"]) for order in orders))
        assert {order["status"] for order in ends} == {"SHIPPED"}
        async with database_of(state) as database:
            charges = await database.fetch(
                "SELECT order_id, count(*) FROM provider.charges GROUP BY order_id"
            )
            counter = "min(serial), max(serial), count(*), count(DISTINCT order_id)"
            numbers = await database.fetchrow(f"SELECT {counter} FROM invoice.invoices")
        process.send(signal.SIGINT)
        assert await process.ended() == 0
    assert sorted(charge["count"] for charge in charges) == [1] * 100
    assert numbers is not None
    assert tuple(numbers) == (1, 100, 100, 100)


async def test_an_event_that_a_service_has_lost_is_sent_again_without_a_person(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with running(state) as (_, api), database_of(state) as database:
        order = await finished(api, (await place(api, "one"))["id"])
        [shipped] = [line for line in order["timeline"] if line["type"] == "SHIPPED"]
        await database.execute("""
            UPDATE shipment.outbox SET published_at = published_at - interval '1 minute'""")
        for lost in (
            'DELETE FROM "order".inbox WHERE event_id = $1',
            'DELETE FROM "order".timeline WHERE event_id = $1',
        ):
            await database.execute(lost, shipped["event_id"])

        async def status() -> str:
            answer: dict[str, Any] = (await api.get(f"/orders/{order['id']}")).json()
            return str(answer["status"])

        await eventually(status, lambda found: found == "SHIPPED")


async def test_stopped_while_orders_are_on_their_way_it_leaves_them_to_the_next_run(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with running(state) as (process, api):
        orders = await asyncio.gather(*(place(api, f"key-{n}") for n in range(50)))
        process.send(signal.SIGTERM)
        assert await process.ended() == 0
    assert "warning" not in process.said
    async with running(state) as (process, api):
        ends = await asyncio.gather(*(finished(api, order["id"]) for order in orders))
    assert {order["status"] for order in ends} == {"SHIPPED"}


async def test_a_taken_port_gives_one_sentence_that_names_a_free_one(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with orderflow("run", folder=tmp_path, STATE="state", PORT=str(port)) as process:
            assert await process.ended() == 1
        [sentence] = process.said.splitlines()
        assert sentence.startswith(f"Port {port} on 127.0.0.1 can't be used: Address already in use.")
        free = int(sentence.partition("PORT=")[2].partition(" ")[0])
        assert free > port
        socket.create_server(("127.0.0.1", free)).close()


async def test_a_second_ctrl_c_ends_it_at_once_and_the_next_run_works(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with running(state) as (process, api):
        port = api.base_url.port
        _, unfinished = await asyncio.open_connection("127.0.0.1", port)
        unfinished.write(b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        unfinished.write(b"Content-Length: 100\r\n\r\n{")
        await unfinished.drain()
        order = await place(api, "one")  # so the other request's beginning was read
        process.send(signal.SIGINT)
        await process.says("Stopping")
        process.send(signal.SIGINT)
        assert await process.ended() == -signal.SIGINT
        unfinished.close()
    async with running(state) as (_, api):
        assert (await finished(api, order["id"]))["status"] == "SHIPPED"


async def test_ctrl_c_while_it_starts_stops_it_with_a_sentence(tmp_path: Path) -> None:
    async with orderflow("run", folder=tmp_path, STATE="state", PORT="0") as process:
        await process.says("is starting")
        process.send(signal.SIGINT)
        assert await process.ended() == 0
    assert "Stopped before it was ready." in process.said
    assert "Traceback" not in process.said


async def test_when_its_database_dies_it_says_so_and_ends(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with running(state) as (process, api):
        await place(api, "one")
        os.kill(postmaster_of(state), signal.SIGKILL)
        assert await process.ended() == 1
    assert "PostgreSQL has ended on its own" in process.said
    assert "Traceback" not in process.said


async def test_it_serves_on_a_database_of_your_own(tmp_path: Path, fresh_database: str) -> None:
    state = tmp_path / "state"
    url = fresh_database.replace("postgresql+asyncpg:", "postgresql:")
    async with running(state, DATABASE_URL=url) as (process, api):
        assert (await finished(api, (await place(api, "one"))["id"]))["status"] == "SHIPPED"
        process.send(signal.SIGHUP)  # the terminal was closed
        assert await process.ended() == 0
    assert not (state / "postgres").exists()


async def test_an_unusable_setting_is_reported_in_a_sentence(tmp_path: Path) -> None:
    async def said_with(setting: str, value: str) -> str:
        environment = {"STATE": f"state-{value[:5]}", "PORT": "0"} | {setting: value}
        async with orderflow("run", folder=tmp_path, **environment) as process:
            assert await process.ended() != 0
        assert "Traceback" not in process.said
        return process.said

    said = await asyncio.gather(
        said_with("DATABASE_URL", "mysql://localhost/shop"),
        said_with("LOG_LEVEL", "LOUD"),
        said_with("STATE", "/proc/nowhere"),
        said_with("PAYMENT_PROVIDER", "paypal"),
        said_with("PAYMENT_PROVIDER", "stripe"),
        said_with("SMTP_URL", "http://mail"),
        said_with("SIMULATED_LATENCY_MS", "long"),
        said_with("SELLER_TIME_ZONE", "Berlin"),
    )
    assert "DATABASE_URL: This is not like postgresql://" in said[0]
    assert "LOG_LEVEL: Input should be 'DEBUG'" in said[1]
    assert "/proc/nowhere can't be written" in said[2]
    assert "PAYMENT_PROVIDER: Input should be 'simulated' or 'stripe'." in said[3]
    assert "STRIPE_API_KEY is needed" in said[4]
    assert "SMTP_URL: A mail server is smtp[s]://" in said[5]
    assert "SIMULATED_LATENCY_MS: Input should be a valid integer" in said[6]
    assert "SELLER_TIME_ZONE: This is no IANA time zone" in said[7]
