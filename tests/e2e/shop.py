"""A merchant's backend: places and follows orders through the gateway, and reads the customers' mails."""

import uuid
from typing import Any

import httpx

from events.journey import ENDS
from sandbox.demo import examples
from tests.e2e.stack import Stack, eventually

Json = dict[str, Any]


class Shop:
    """A client of the gateway and of the mail server's API; it ignores HTTP proxies."""

    def __init__(self, stack: Stack) -> None:
        self.gateway = httpx.Client(base_url=stack.gateway_url, trust_env=False, timeout=30)
        self._mailbox = httpx.Client(base_url=stack.mail_url, trust_env=False, timeout=30)

    def close(self) -> None:
        """Close the connections."""
        self.gateway.close()
        self._mailbox.close()

    def place(self, order: Json, key: str | None = None) -> Json:
        """Place an order that must be accepted, and return the answer."""
        answer = self.gateway.post("/orders", json=order, headers={"Idempotency-Key": key} if key else {})
        assert answer.status_code == 201, answer.text
        placed: Json = answer.json()
        return placed

    def order(self, order_id: str) -> Json:
        """The order as it is now."""
        answer = self.gateway.get(f"/orders/{order_id}")
        assert answer.status_code == 200, answer.text
        order: Json = answer.json()
        return order

    def finished(self, order_id: str) -> Json:
        """The order once it has reached a final status."""
        return self.reached(order_id, *ENDS)

    def reached(self, order_id: str, *statuses: str) -> Json:
        """The order once it has reached one of these statuses."""
        return eventually(lambda: self.order(order_id), lambda order: order["status"] in statuses, seconds=90)

    def mails(self, address: str, count: int) -> list[Json]:
        """The mails to an address, once there are as many as expected; oldest first."""
        return eventually(lambda: self._mails_to(address), lambda mails: len(mails) >= count)

    def _mails_to(self, address: str) -> list[Json]:
        answer = self._mailbox.get("/email").raise_for_status()
        return [mail for mail in answer.json() if address in [to["address"] for to in mail["to"]]]


def an_order(**changes: Any) -> Json:
    """A valid order of a new customer: 46.57 BRL, to Brazil, with a card that pays."""
    order: Json = {
        "reference": "WEB-1042",
        "customer": {"name": "Ana Souza", "email": f"{uuid.uuid4().hex}@example.com", "locale": "pt-BR"},
        "shipping_address": {
            "line1": "Rua Augusta 1",
            "city": "São Paulo",
            "postal_code": "01304-001",
            "country": "BR",
        },
        "currency": "BRL",
        "items": [{"sku": "MUG-01", "name": "Mug", "quantity": 2, "unit_price": "19.90", "tax_rate": "0.17"}],
        "payment_method": "pm_card_visa",
    }
    return order | changes


def an_example(name: str) -> Json:
    """The order of a file in examples/, of a new customer."""
    [order] = [each.order for each in examples.load(examples.FOLDER) if each.name == name]
    return order | {"customer": order["customer"] | {"email": f"{uuid.uuid4().hex}@example.com"}}


def stages(order: Json) -> list[str]:
    """The types in an order's timeline."""
    return [line["type"] for line in order["timeline"]]
