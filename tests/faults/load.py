"""The load: a merchant's backend that places orders and repeats every request that got no answer."""

import asyncio
import json
import random
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
    """Generates orders with all currencies, odd cents, one to three items, and every possible end."""

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
        order = {
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
        """Places an order until it is accepted; sometimes repeats it with the same or another body."""
        await self._until_answered(client, order, order.body)
        chance = self.dice.random()
        if chance < 0.05:
            await self._until_answered(client, order, order.body)
        elif chance < 0.06:
            await self._until_answered(client, order, order.body.replace(b'"Mug"', b'"Jug"'))

    async def _until_answered(self, client: Client, order: PlannedOrder, body: bytes) -> None:
        while True:
            self.history.sent(order.key, order.expected, order.email)
            try:
                status, answer = await client.post("/orders", body, order.key)
            except NoAnswer as error:
                self.history.unanswered(order.key, str(error))
            else:
                if status in (201, 422):
                    self.history.answered(order.key, status, answer)
                    return
                self.history.unanswered(order.key, str(status))
            await asyncio.sleep(self.dice.uniform(0.1, 0.5))
