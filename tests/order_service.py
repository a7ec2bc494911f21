"""A running order service on real HTTP and PostgreSQL, for tests."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn

from chassis.application import application
from chassis.process import listen
from chassis.service import open_service
from events.contracts import AnyEvent, type_of
from events.envelope import messages
from events.memory import MemoryBus
from events.transactions import Transactions
from services.order.main import SERVICE
from services.order.requests import NewOrder
from services.order.settings import OrderSettings
from tests.waiting import patient_bus

Json = dict[str, Any]


@dataclass(frozen=True)
class OrderService:
    """A running order service and its surroundings."""

    http: httpx.AsyncClient
    port: int
    transactions: Transactions
    bus: MemoryBus

    async def place(self, **changes: Any) -> Json:
        """Places an order, which must be accepted. Returns its document."""
        answer = await self.http.post("/orders", json=a_new_order(**changes))
        assert answer.status_code == 201, answer.text
        placed: Json = answer.json()
        return placed

    async def read(self, order_id: str) -> Json:
        """The order's document."""
        answer = await self.http.get(f"/orders/{order_id}")
        assert answer.status_code == 200, answer.text
        order: Json = answer.json()
        return order

    async def publish(self, *events: AnyEvent) -> None:
        """Returns when the service has committed the events."""
        async with asyncio.timeout(30):
            for message in messages(events):
                await self.bus.publish(message)

    async def written(self) -> dict[str, int]:
        """The number of rows in each table that the intake writes."""
        async with self.transactions() as tx:
            [counts] = await tx.fetch("""
                SELECT (SELECT count(*) FROM orders) AS orders,
                    (SELECT count(*) FROM timeline) AS lines,
                    (SELECT count(*) FROM idempotency_keys) AS keys,
                    (SELECT coalesce(sum(cardinality(event_ids)), 0) FROM outbox) AS announced""")
        return dict(counts)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def order_service(url: str) -> AsyncIterator[OrderService]:
    """Serves and consumes until the block ends. Announced events stay in its outbox."""
    bus = patient_bus({"order": [type_of(event) for event in SERVICE.handlers]})
    settings = OrderSettings(database_url=url)
    async with open_service(SERVICE, settings, bus) as running:
        listener = listen("127.0.0.1", 0)
        port: int = listener.getsockname()[1]
        config = uvicorn.Config(
            application([running]),
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_keep_alive=60,  # longer than the client: a connection must not be cut when reused
        )
        server = _Server(config)
        worker = running.participant.worker
        async with asyncio.TaskGroup() as parts:
            parts.create_task(server.serve(sockets=[listener]))
            parts.create_task(worker.run())
            client = httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}",
                trust_env=False,
                timeout=30,
                limits=httpx.Limits(max_connections=None),
            )
            async with client:
                yield OrderService(client, port, running.transactions, bus)
            server.should_exit = True
            worker.stop()


def a_new_order(**changes: Any) -> Json:
    """The body of a valid order over 46.57 BRL."""
    order: Json = {
        "reference": "WEB-1042",
        "customer": {"name": "Ana Souza", "email": "ana@example.com", "locale": "pt-BR"},
        "shipping_address": {
            "line1": "Rua Augusta 1",
            "city": "São Paulo",
            "postal_code": "01304-001",
            "country": "BR",
        },
        "currency": "BRL",
        "items": [a_new_item()],
        "payment_method": "pm_card_visa",
    }
    return order | changes


def a_rich_order(**changes: Any) -> Json:
    """The body of a valid order over 158.79 EUR that says all it can: the second example in OpenAPI."""
    order: Json = deepcopy(NewOrder.model_json_schema()["examples"][1])
    return order | changes


def a_new_item(**changes: Any) -> Json:
    """Two mugs at 19.90 with 17 % tax."""
    item: Json = {"sku": "MUG-01", "name": "Mug", "quantity": 2, "unit_price": "19.90", "tax_rate": "0.17"}
    return item | changes
