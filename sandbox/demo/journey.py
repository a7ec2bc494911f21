"""One order's way through the system, as a merchant's backend sees it over HTTP."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from events.journey import WAYS
from sandbox.demo.examples import Example


@dataclass
class Journey:
    """An example on its way: what the API has said of it so far."""

    example: Example
    order: dict[str, Any] | None = None
    """The API's latest answer about it."""
    refusal: str | None = None
    """Why it was not accepted."""
    replay: str | None = None
    """What was wrong with the answer to sending it a second time, if anything was."""

    @property
    def id(self) -> str | None:
        """The order's id, once it is accepted."""
        return self.order["id"] if self.order else None

    @property
    def status(self) -> str | None:
        """Where it stands, once it is accepted."""
        return self.order["status"] if self.order else None

    @property
    def stages(self) -> set[str]:
        """What its timeline tells."""
        return {entry["type"] for entry in self.order["timeline"]} if self.order else set()

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.refusal is not None or self.stages == set(WAYS.get(self.status or "", ["never"]))

    def detail(self, part: str, name: str) -> str | None:
        """A part's detail, such as the invoice's number; None while there is none."""
        known = (self.order or {}).get(part)
        return str(known[name]) if known else None

    async def begin(self, api: httpx.AsyncClient) -> None:
        """Places the order; if the example says so, twice under the same Idempotency-Key."""
        answer = await self._post(api)
        if answer.status_code != httpx.codes.CREATED:
            self.refusal = f"answered {answer.status_code}: {answer.text}"
            return
        self.order = answer.json()
        if self.example.sent_twice:
            second = await self._post(api)
            if second.status_code != answer.status_code or second.json() != answer.json():
                self.replay = f"answered {second.status_code}: {second.text}"
            elif second.headers.get("Idempotency-Replayed") != "true":
                self.replay = "was not marked with Idempotency-Replayed: true"

    async def follow(self, api: httpx.AsyncClient) -> None:
        """Looks where it stands now."""
        if self.id is not None and not self.is_over:
            self.order = (await api.get(f"/orders/{self.id}")).raise_for_status().json()

    def faults(self) -> list[str]:
        """In what it is not as the example says it should be, a sentence each; nothing if all is well."""
        name, expected = self.example.reference, self.example
        if self.refusal is not None:
            return [f"{name} was not accepted: {self.refusal}"]
        if self.order is None:
            return [f"{name} was not placed."]
        faults = []
        if not self.is_over:
            faults.append(f"{name} ({self.id}) is still at {self.status}{self._waiting_for()}.")
        elif self.status != expected.ends:
            faults.append(
                f"{name} ({self.id}) ended at {self.status}{self._because()}, not at {expected.ends}."
            )
        elif self.detail("reason", "code") != expected.reason:
            faults.append(f"{name} ended{self._because()}, not for {expected.reason}.")
        if self.order["total"] != expected.total:
            faults.append(f"{name} came to {self.order['total']}, not to {expected.total}.")
        if self.replay is not None:
            faults.append(f"{name}, sent again, {self.replay}")
        return faults

    def _because(self) -> str:
        code = self.detail("reason", "code")
        return f" for {code}" if code else ""

    def _waiting_for(self) -> str:
        waiting = (self.order or {}).get("waiting")
        return f", and waits: {waiting['reason']['message'].rstrip('.')}" if waiting else ""

    async def _post(self, api: httpx.AsyncClient) -> httpx.Response:
        headers = {"Idempotency-Key": f"demo-{self.example.name}"}
        return await api.post("/orders", json=self.example.order, headers=headers)


async def place(journeys: Sequence[Journey], api: httpx.AsyncClient, *, pace: float) -> None:
    """Begins them one after the other, `pace` seconds apart."""
    for journey in journeys:
        await journey.begin(api)
        await asyncio.sleep(pace)
