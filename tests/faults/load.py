"""The load: a merchant's backend that never lets up, and asks again whatever it got no answer to."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from events import money
from tests.faults.client import Client, NoAnswer
from tests.faults.history import History
from tests.faults.mailbox import NOBODY

CURRENCIES: Final = ("BRL", "EUR", "USD", "JPY", "KWD", "GBP", "CLP", "SEK")
DECLINED: Final = (
    "pm_card_chargeDeclined",
    "pm_card_chargeDeclinedInsufficientFunds",
    "pm_card_chargeDeclinedExpiredCard",
    "pm_card_chargeDeclinedIncorrectCvc",
    "pm_card_chargeDeclinedFraudulent",
)
CANARY: Final = "canary"
"""In every token of unknown payment methods, and in every text that goes into mails only."""


@dataclass(frozen=True)
class Wish:
    """An order to be placed, and how it is to end."""

    key: str
    body: bytes
    expected: str
    email: str


def wishes(seed: int, run: str) -> "Wishes":
    """An endless supply of orders, the same for the same seed."""
    return Wishes(random.Random(seed), run)


@dataclass
class Wishes:
    """Orders of every kind: currencies, odd cents, one to three items, and every end that there is."""

    dice: random.Random
    run: str
    undeliverable: float = 0.03
    """Share of orders that can't be shipped, and are refunded."""
    made: int = 0

    def next(self) -> Wish:
        """The next order."""
        self.made += 1
        number, dice = self.made, self.dice
        buyer = NOBODY if dice.random() < 0.005 else "buyer-"
        email = f"{buyer}{number}@{self.run}.example"
        country, method, expected = "BR", "pm_card_visa", "SHIPPED"
        fate = dice.random()
        if fate < 0.06:
            method, expected = dice.choice(DECLINED), "PAYMENT_FAILED"
        elif fate < 0.07:
            method, expected = f"pm_{CANARY}_{number}", "PAYMENT_FAILED"
        elif fate < 0.07 + self.undeliverable:
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
        return Wish(f"{self.run}-{number}", json.dumps(order).encode(), expected, email)

    def _item(self, currency: str, number: int) -> dict[str, Any]:
        step = 10 if money.exponent(currency) == 3 else 1  # cards are charged in steps of ten there
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
    """Places orders until there are enough; `clients` at a time, while the system is not too far behind."""

    history: History
    wishes: Wishes
    port: int
    target: int
    may_go_on: Callable[[], Awaitable[None]]
    """Returns when the next order may be placed."""
    dice: random.Random = field(default_factory=random.Random)
    wanted: int = 0
    done: int = 0
    """Orders that were placed and answered."""

    async def run(self, clients: int) -> None:
        """Returns when every order was accepted."""
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(self._client())

    async def _client(self) -> None:
        client = Client(self.port)
        try:
            while self.wanted < self.target:
                self.wanted += 1
                await self.may_go_on()
                await self.place(client, self.wishes.next())
                self.done += 1
        finally:
            client.close()

    async def place(self, client: Client, wish: Wish) -> None:
        """Places one order, and asks until it is accepted; now and then once more, or for something else."""
        await self._until_answered(client, wish, wish.body)
        chance = self.dice.random()
        if chance < 0.05:
            await self._until_answered(client, wish, wish.body)
        elif chance < 0.06:
            await self._until_answered(client, wish, wish.body.replace(b'"Mug"', b'"Jug"'))

    async def _until_answered(self, client: Client, wish: Wish, body: bytes) -> None:
        while True:
            self.history.sent(wish.key, wish.expected, wish.email)
            try:
                status, answer = await client.post("/orders", body, wish.key)
            except NoAnswer as error:
                self.history.unanswered(wish.key, str(error))
            else:
                if status in (201, 422):
                    self.history.answered(wish.key, status, answer)
                    return
                self.history.unanswered(wish.key, str(status))
            await asyncio.sleep(self.dice.uniform(0.1, 0.5))


@asynccontextmanager
async def under(load: Load, clients: int) -> AsyncIterator[asyncio.Task[None]]:
    """The load runs while the context is open; nobody asks for more at its end."""
    task = asyncio.create_task(load.run(clients), name="load")
    try:
        yield task
    finally:
        load.target = 0
        await task
