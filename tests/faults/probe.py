"""A probe: one order that must get through every service."""

import asyncio
import json
import time
from itertools import count
from typing import Final

from tests.faults.client import Client, NoAnswer
from tests.faults.cluster import Cluster
from tests.faults.history import History
from tests.faults.load import PlannedOrder

SECONDS: Final = 90.0
_numbers: Final = count(1)


async def probe(cluster: Cluster, history: History) -> float:
    """Places an order and returns the seconds until it was shipped. Raises TimeoutError."""
    began = time.monotonic()
    number = next(_numbers)
    email = f"probe-{number}@probes.example"
    document = {
        "customer": {"name": "Ana Souza", "email": email},
        "shipping_address": {
            "line1": "Rua 1",
            "city": "São Paulo",
            "postal_code": "01304-001",
            "country": "BR",
        },
        "currency": "BRL",
        "items": [{"sku": "MUG-01", "name": "Mug", "quantity": 2, "unit_price": "19.90", "tax_rate": "0.17"}],
        "payment_method": "pm_card_visa",
    }
    order = PlannedOrder(f"probe-{number}", json.dumps(document).encode(), "SHIPPED", email)
    client = Client(cluster.port)
    try:
        async with asyncio.timeout(SECONDS):
            order_id = await _place(client, order, history)
            while True:
                try:
                    status, body = await client.get(f"/orders/{order_id}")
                except NoAnswer:
                    status, body = 0, b""
                if status == 200 and json.loads(body)["status"] == order.expected:
                    return time.monotonic() - began
                await asyncio.sleep(0.05)
    finally:
        client.close()


async def _place(client: Client, order: PlannedOrder, history: History) -> str:
    while True:
        history.sent(order.key, order.expected, order.email)
        try:
            status, body = await client.post("/orders", order.body, order.key)
        except NoAnswer as error:
            history.unanswered(order.key, str(error))
        else:
            if status == 201:
                history.answered(order.key, status, body)
                return str(json.loads(body)["id"])
            history.unanswered(order.key, str(status))
        await asyncio.sleep(0.2)
