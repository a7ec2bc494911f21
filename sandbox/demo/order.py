"""One order of the demo, as a merchant's backend sees it over HTTP."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from events.journey import WAYS
from sandbox.demo.examples import Example


@dataclass
class DemoOrder:
    """An example, and what the API has answered about it so far."""

    example: Example
    document: dict[str, Any] | None = None
    """The API's latest document of it; None until it is accepted."""
    refusal: str | None = None
    """The API's answer, if it was not accepted."""
    replay_failure: str | None = None
    """How the answer to the repeated request differed, if it did."""

    @property
    def id(self) -> str | None:
        """Its id, once it is accepted."""
        return self.document["id"] if self.document else None

    @property
    def status(self) -> str | None:
        """Its status, once it is accepted."""
        return self.document["status"] if self.document else None

    @property
    def stages(self) -> set[str]:
        """The events in its timeline."""
        return {entry["type"] for entry in self.document["timeline"]} if self.document else set()

    @property
    def is_finished(self) -> bool:
        """Whether it was refused, or has a final status and a complete timeline."""
        return self.refusal is not None or self.stages == set(WAYS.get(self.status or "", ["never"]))

    def detail(self, part: str, name: str) -> str | None:
        """Returns a field of a part, such as the invoice's number; None while there is none."""
        known = (self.document or {}).get(part)
        return str(known[name]) if known else None

    async def place(self, api: httpx.AsyncClient) -> None:
        """Places the order, twice if the example says so, under one Idempotency-Key."""
        answer = await self._post(api)
        if answer.status_code != httpx.codes.CREATED:
            self.refusal = f"answered {answer.status_code}: {answer.text}"
            return
        self.document = answer.json()
        if self.example.sent_twice:
            second = await self._post(api)
            if second.status_code != answer.status_code or second.json() != answer.json():
                self.replay_failure = f"answered {second.status_code}: {second.text}"
            elif second.headers.get("Idempotency-Replayed") != "true":
                self.replay_failure = "was not marked with Idempotency-Replayed: true"

    async def refresh(self, api: httpx.AsyncClient) -> None:
        """Gets the API's latest document of it, unless it is finished."""
        if self.id is not None and not self.is_finished:
            self.document = (await api.get(f"/orders/{self.id}")).raise_for_status().json()

    def failures(self) -> list[str]:
        """Returns a sentence for each difference from the expected outcome."""
        name, expected = self.example.reference, self.example
        if self.refusal is not None:
            return [f"{name} was not accepted: {self.refusal}"]
        if self.document is None:
            return [f"{name} was not placed."]
        failures = []
        if not self.is_finished:
            failures.append(f"{name} ({self.id}) is still at {self.status}{self._waiting_for()}.")
        elif self.status != expected.ends:
            failures.append(
                f"{name} ({self.id}) ended at {self.status}{self._for_reason()}, not at {expected.ends}."
            )
        elif self.detail("reason", "code") != expected.reason:
            failures.append(f"{name} ended{self._for_reason()}, not for {expected.reason}.")
        if self.document["total"] != expected.total:
            failures.append(f"{name} came to {self.document['total']}, not to {expected.total}.")
        if expected.tax is not None and self.document["tax"] != expected.tax:
            failures.append(f"{name} has a tax of {self.document['tax']}, not of {expected.tax}.")
        if self.replay_failure is not None:
            failures.append(f"{name}, sent a second time, {self.replay_failure}")
        return failures

    def _for_reason(self) -> str:
        code = self.detail("reason", "code")
        return f" for {code}" if code else ""

    def _waiting_for(self) -> str:
        waiting = (self.document or {}).get("waiting")
        return f", and waits: {waiting['reason']['message'].rstrip('.')}" if waiting else ""

    async def _post(self, api: httpx.AsyncClient) -> httpx.Response:
        headers = {"Idempotency-Key": f"demo-{self.example.name}"}
        return await api.post("/orders", json=self.example.order, headers=headers)


async def place_all(orders: Sequence[DemoOrder], api: httpx.AsyncClient, *, pause: float) -> None:
    """Places the orders one after the other, `pause` seconds apart."""
    for order in orders:
        await order.place(api)
        await asyncio.sleep(pause)
