"""The load: a merchant's backend that places orders and repeats every request that got no answer."""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from events import money
from tests.faults.client import Client, NoAnswer
from tests.faults.history import History
from tests.faults.mailbox import UNKNOWN_RECIPIENT

CURRENCIES: Final = ("BRL", "EUR", "USD", "JPY", "KWD", "GBP", "CLP", "SEK")
DECLINED: Final = (
    "pm_card_chargeDeclined",
    "pm_card_chargeDeclinedInsufficientFunds",
    "pm_card_chargeDeclinedExpiredCard",
    "pm_card_chargeDeclinedIncorrectCvc",
    "pm_card_chargeDeclinedFraudulent",
)
CANARY: Final = "canary"
"""Part of every unknown payment method and of every text that only mails may contain."""
RICH: Final = 0.25
"""The share of orders that say more than the plain ones: gross prices, discounts, shipping and others."""
FREE: Final = 0.02
"""The share of orders that cost nothing."""
REFUSED_SECONDS: Final = 120.0
"""A legal order is a breach if it is refused for so long. The previous version, whose processes never run for
so long, refuses what only this one knows."""


class LegalOrderRefused(Exception):
    """The system refuses an order that it has to accept."""


@dataclass(frozen=True)
class PlannedOrder:
    """An order to place, and the status at which it must end."""

    key: str
    body: bytes
    expected: str
    email: str


def order_generator(seed: int, run: str) -> "OrderGenerator":
    """An endless supply of orders; the same seed gives the same orders."""
    return OrderGenerator(random.Random(seed), run)


@dataclass
class OrderGenerator:
    """Generates orders with all currencies, odd cents, one to three items, and every possible end.

    A RICH share has gross prices, discounts, shipping and quantities with decimals. A FREE share costs
    nothing: it pays without a payment method, or whatever method it names.
    """

    dice: random.Random
    run: str
    undeliverable: float = 0.03
    """The share of orders that can't be shipped and are refunded."""
    made: int = 0

    def next(self) -> PlannedOrder:
        """The next order."""
        self.made += 1
        number, dice = self.made, self.dice
        buyer = UNKNOWN_RECIPIENT if dice.random() < 0.005 else "buyer-"
        email = f"{buyer}{number}@{self.run}.example"
        country, method, expected = "BR", "pm_card_visa", "SHIPPED"
        chance = dice.random()
        if chance < 0.06:
            method, expected = dice.choice(DECLINED), "PAYMENT_FAILED"
        elif chance < 0.07:
            method, expected = f"pm_{CANARY}_{number}", "PAYMENT_FAILED"
        elif chance < 0.07 + self.undeliverable:
            country, expected = "AQ", "PAYMENT_REFUNDED"
        currency = dice.choice(CURRENCIES)
        order: dict[str, Any] = {
            "reference": f"{self.run}-{number}",
            "customer": {"name": "Ana Souza", "email": email, "locale": "pt-BR"},
            "shipping_address": {
                "line1": f"Rua {CANARY} 1",
                "city": "São Paulo",
                "postal_code": "01304-001",
                "country": country,
            },
            "currency": currency,
            "items": [self._item(currency, n) for n in range(dice.randint(1, 3))],
            "payment_method": method,
        }
        kind = dice.random()
        if kind < FREE:
            self._make_free(order)
            expected = "PAYMENT_REFUNDED" if country == "AQ" else "SHIPPED"
        elif kind < FREE + RICH:
            self._make_rich(order)
        return PlannedOrder(f"{self.run}-{number}", json.dumps(order).encode(), expected, email)

    def _item(self, currency: str, number: int) -> dict[str, Any]:
        step = 10 if money.exponent(currency) == 3 else 1  # card amounts must be multiples of ten there
        price = money.format_amount(self.dice.randint(300, 29999) * step, currency)
        rate = "0" if step == 10 else self.dice.choice(("0", "0.17", "0.19", "0.075"))
        return {
            "sku": f"SKU-{number}",
            "name": "Mug",
            "quantity": self.dice.randint(1, 3),
            "unit_price": price,
            "tax_rate": rate,
        }

    def _make_free(self, order: dict[str, Any]) -> None:
        for item in order["items"]:
            item["discount"] = {"rate": "1", "name": "SAMPLE"}
        if self.dice.random() < 0.5:
            del order["payment_method"]

    def _make_rich(self, order: dict[str, Any]) -> None:
        """Adds what an order can say. The total stays within the limits and in the steps of its currency."""
        dice, currency = self.dice, order["currency"]
        in_steps = money.exponent(currency) == 3  # nothing may be rounded there, so prices are gross
        order["prices"] = "gross" if in_steps else dice.choice(("net", "gross"))
        order["tax_rounding"] = dice.choice(("line", "rate"))
        discounts = [None, {"amount": money.format_amount(100, currency), "name": "SUMMER"}]
        if not in_steps:
            discounts.append({"rate": "0.1"})
        for number, item in enumerate(order["items"]):
            item["id"] = f"line-{number}"
            item["tax_rate"] = dice.choice(("0", "0.17", "0.19", "0.075"))
            item["quantity"] = dice.choice((1, 3, "0.5", "1.5") if in_steps else (1, 3, "0.5", "2.375"))
            whole = dice.randint(300, 2999)
            item["unit_price"] = (
                money.format_amount(whole * 20, currency)
                if in_steps
                else f"{whole}.{dice.randrange(10_000):04d}"
            )
            item["discount"] = dice.choice(discounts)
        order["discount"] = dice.choice(discounts)
        order["shipping"] = {"price": money.format_amount(490, currency), "tax_rate": "0.19"}
        order["billing_address"] = order["shipping_address"] | {"country": "BR", "name": "Bia Souza"}
        order["note"] = f"A note with the {CANARY}."
        order["metadata"] = {"channel": "web", "cart": order["reference"]}


@dataclass
class Load:
    """Places orders with several clients until `target` is reached; `wait_for_turn` sets the pace."""

    history: History
    order_generator: OrderGenerator
    port: int
    target: int
    wait_for_turn: Callable[[], Awaitable[None]]
    """Returns when the next order may be placed."""
    dice: random.Random = field(default_factory=random.Random)
    begun: int = 0
    done: int = 0
    """Orders that were placed and answered."""

    async def run(self, clients: int) -> None:
        """Returns when every order is accepted."""
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(self._client())

    async def _client(self) -> None:
        client = Client(self.port)
        try:
            while self.begun < self.target:
                self.begun += 1
                await self.wait_for_turn()
                await self.place(client, self.order_generator.next())
                self.done += 1
        finally:
            client.close()

    async def place(self, client: Client, order: PlannedOrder) -> None:
        """Places an order until it is accepted; sometimes repeats it with the same or another body.

        Raises LegalOrderRefused.
        """
        await self._until_accepted(client, order)
        chance = self.dice.random()
        if chance < 0.05:
            await self._until_accepted(client, order)
        elif chance < 0.06:
            changed = order.body.replace(b'"Mug"', b'"Jug"')
            while await self._answer(client, order, changed) not in (201, 422):
                await self._pause()

    async def _until_accepted(self, client: Client, order: PlannedOrder) -> None:
        refused: float | None = None
        while (status := await self._answer(client, order, order.body)) != 201:
            refused = (refused or time.monotonic()) if status == 422 else None
            if refused and time.monotonic() - refused > REFUSED_SECONDS:
                raise LegalOrderRefused(f"{LegalOrderRefused.__doc__} {order.body.decode()}")
            await self._pause()

    async def _pause(self) -> None:
        await asyncio.sleep(self.dice.uniform(0.1, 0.5))

    async def _answer(self, client: Client, order: PlannedOrder, body: bytes) -> int:
        """Sends a body under the order's key, and returns the status of the answer; 0 without one."""
        self.history.sent(order.key, order.expected, order.email)
        try:
            status, answer = await client.post("/orders", body, order.key)
        except NoAnswer as error:
            self.history.unanswered(order.key, str(error))
            return 0
        if status == 201 or (status == 422 and body is not order.body):
            self.history.answered(order.key, status, answer)
        else:
            self.history.unanswered(order.key, str(status))
        return status
