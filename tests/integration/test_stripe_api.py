"""The server of `sandbox.stripe` answers as Stripe documents it, over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest

from sandbox.stripe.cards import AUTHENTICATES, DECLINES, PAYS
from sandbox.stripe.faults import Behaviour, Step, Timing
from services.billing import simulated
from tests.stripe_server import StripeServer, stripe_server
from tests.waiting import eventually

INTENTS = "/v1/payment_intents"
FORM: dict[str, object] = {"amount": 4657, "currency": "brl", "payment_method": "pm_card_visa"}
GOOD: dict[str, object] = {"amount": 50, "currency": "brl"}
SHIPPED: dict[str, object] = {
    "shipping[name]": "Ana Souza",
    "shipping[address][line1]": "Rua Augusta 1",
    "shipping[address][country]": "BR",
}


@dataclass
class Client:
    """Asks as curl would."""

    http: httpx.AsyncClient
    server: StripeServer

    async def post(self, path: str, key: str | None = None, /, **form: object) -> httpx.Response:
        headers = {"Idempotency-Key": key} if key else {}
        data = {name.replace("__", "[", 1) + ("]" if "__" in name else ""): v for name, v in form.items()}
        return await self.http.post(path, data=data, headers=headers)

    async def get(self, path: str, **query: Any) -> httpx.Response:
        return await self.http.get(path, params=query)

    async def an_intent(self, payment_method: str = "pm_card_visa", **form: object) -> str:
        """The id of a new one."""
        answer = await self.post(INTENTS, **FORM | {"payment_method": payment_method} | form)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with (
        stripe_server(Timing(search_seconds=0)) as server,
        httpx.AsyncClient(base_url=server.url, trust_env=False) as http,
    ):
        yield Client(http, server)


def error(answer: httpx.Response) -> tuple[int, str, str | None]:
    """Status, type and code of an error."""
    body = answer.json()["error"]
    assert body["message"]
    return answer.status_code, body["type"], body.get("code")


INVALID = "invalid_request_error"
UNEXPECTED = (400, INVALID, "payment_intent_unexpected_state")


# The card's states


async def test_an_intent_is_created_confirmed_and_shown(client: Client) -> None:
    created = (
        await client.post(
            INTENTS, amount=4657, currency="brl", payment_method="pm_card_visa", metadata__a="1"
        )
    ).json()
    assert (created["status"], created["metadata"], created["latest_charge"]) == (
        "requires_confirmation",
        {"a": "1"},
        None,
    )
    paid = (await client.post(f"{INTENTS}/{created['id']}/confirm")).json()
    assert (paid["status"], paid["amount_received"]) == ("succeeded", 4657)
    assert (await client.get(f"{INTENTS}/{created['id']}")).json() == paid
    shown = (await client.get(f"{INTENTS}/{created['id']}", **{"expand[]": "latest_charge"})).json()
    charge = shown["latest_charge"]
    assert (charge["id"], charge["object"], charge["paid"]) == (paid["latest_charge"], "charge", True)


@pytest.mark.parametrize("payment_method", DECLINES)
async def test_a_decline_leaves_an_intent_that_wants_another_card(
    client: Client, payment_method: str
) -> None:
    intent = await client.an_intent(payment_method)
    answer = await client.post(f"{INTENTS}/{intent}/confirm")
    code, decline_code = DECLINES[payment_method]
    assert error(answer) == (402, "card_error", code)
    assert answer.json()["error"]["decline_code"] == decline_code
    left = (await client.get(f"{INTENTS}/{intent}")).json()
    assert (left["status"], left["payment_method"]) == ("requires_payment_method", None)
    assert left["last_payment_error"]["decline_code"] == decline_code
    assert answer.json()["error"]["payment_intent"] == left
    assert error(await client.post(f"{INTENTS}/{intent}/confirm")) == UNEXPECTED
    again = await client.post(f"{INTENTS}/{intent}/confirm", payment_method="pm_card_visa")
    assert again.json()["status"] == "succeeded"


@pytest.mark.parametrize("payment_method", sorted(AUTHENTICATES))
async def test_where_nobody_is_there_to_authenticate_it_is_a_decline(
    client: Client, payment_method: str
) -> None:
    alone = await client.an_intent(payment_method)
    answer = await client.post(f"{INTENTS}/{alone}/confirm", off_session="true")
    assert error(answer) == (402, "card_error", "authentication_required")
    attended = await client.an_intent(payment_method)
    answer = await client.post(f"{INTENTS}/{attended}/confirm")
    assert answer.json()["status"] == "requires_action"
    assert (await client.post(f"{INTENTS}/{attended}/cancel")).json()["status"] == "canceled"


async def test_what_is_over_can_be_neither_confirmed_nor_cancelled(client: Client) -> None:
    paid, cancelled = await client.an_intent(), await client.an_intent()
    await client.post(f"{INTENTS}/{paid}/confirm")
    await client.post(f"{INTENTS}/{cancelled}/cancel")
    for intent in (paid, cancelled):
        for step in ("confirm", "cancel"):
            assert error(await client.post(f"{INTENTS}/{intent}/{step}")) == UNEXPECTED


async def test_what_is_processing_can_be_neither_confirmed_nor_cancelled_and_comes_to_its_end(
    client: Client,
) -> None:
    client.server.timing.processing_seconds = 0.5
    order_id = uuid4()
    client.server.fail(order_id, Step.CONFIRM, Behaviour.PROCESSING)
    intent = await client.an_intent(metadata__order_id=order_id)
    assert (await client.post(f"{INTENTS}/{intent}/confirm")).json()["status"] == "processing"
    for step in ("confirm", "cancel"):
        assert error(await client.post(f"{INTENTS}/{intent}/{step}")) == UNEXPECTED

    async def status() -> str:
        return str((await client.get(f"{INTENTS}/{intent}")).json()["status"])

    await eventually(status, lambda answer: answer == "succeeded")
    assert client.server.captured(order_id) == [4657]


@pytest.mark.parametrize(
    ("form", "status_type_code"),
    [
        ({"currency": "brl"}, (400, INVALID, "parameter_missing")),
        ({"amount": 5}, (400, INVALID, "parameter_missing")),
        ({"amount": "5.5", "currency": "brl"}, (400, INVALID, "parameter_invalid_integer")),
        ({"amount": 0, "currency": "brl"}, (400, INVALID, "parameter_invalid_integer")),
        ({"amount": 100_000_000, "currency": "brl"}, (400, INVALID, "amount_too_large")),
        ({"amount": 40, "currency": "eur"}, (400, INVALID, "amount_too_small")),
        ({"amount": 5, "currency": "irr"}, (400, INVALID, None)),
        ({"amount": 5125, "currency": "kwd"}, (400, INVALID, None)),
        ({"amount": 50, "currency": "brl", "payment_method": "pm_x"}, (400, INVALID, "resource_missing")),
        ({"amount": 50, "currency": "brl", "total": 5}, (400, INVALID, "parameter_unknown")),
        (GOOD | {"description": "x" * 1001}, (400, INVALID, None)),
        (GOOD | {"description": " "}, (400, INVALID, "parameter_invalid_string_blank")),
        (GOOD | SHIPPED | {"shipping[name]": ""}, (400, INVALID, "parameter_invalid_empty")),
        (GOOD | {"shipping[address][city]": "Rio"}, (400, INVALID, "parameter_missing")),
        (GOOD | {"shipping[name]": "Ana"}, (400, INVALID, "parameter_missing")),
        (GOOD | SHIPPED | {"shipping[address][country]": "BRA"}, (400, INVALID, None)),
        (GOOD | SHIPPED | {"shipping[address][line1]": "x" * 5001}, (400, INVALID, None)),
        (GOOD | SHIPPED | {"shipping[address][company]": "x"}, (400, INVALID, "parameter_unknown")),
        (GOOD | SHIPPED | {"shipping[email]": "a@example.com"}, (400, INVALID, "parameter_unknown")),
        (GOOD | {f"metadata[{number}]": 1 for number in range(51)}, (400, INVALID, None)),
        (GOOD | {"metadata[" + "k" * 41 + "]": 1}, (400, INVALID, None)),
        (GOOD | {"metadata[k]": "x" * 501}, (400, INVALID, None)),
    ],
)
async def test_parameters_that_make_no_sense_are_refused(
    client: Client, form: dict[str, object], status_type_code: tuple[int, str, str | None]
) -> None:
    assert error(await client.post(INTENTS, "key", **form)) == status_type_code
    good = await client.post(INTENTS, "key", amount=50, currency="brl", payment_method="pm_card_visa")
    assert good.status_code == 200, "what fails validation is not saved with its key"


async def test_description_and_shipping_address_are_kept_and_shown(client: Client) -> None:
    form = FORM | SHIPPED | {"description": "Order 1", "shipping[phone]": "+55 11 5555 0100"}
    intent = (await client.post(INTENTS, **form)).json()
    paid = (await client.post(f"{INTENTS}/{intent['id']}/confirm")).json()
    for shown in (intent, paid):
        assert (shown["description"], shown["shipping"]["name"]) == ("Order 1", "Ana Souza")
        assert shown["shipping"]["phone"] == "+55 11 5555 0100"
        assert shown["shipping"]["address"] == {
            "city": None,
            "country": "BR",
            "line1": "Rua Augusta 1",
            "line2": None,
            "postal_code": None,
            "state": None,
        }


async def test_a_key_is_refused_with_another_description_or_address(client: Client) -> None:
    await client.post(INTENTS, "a", **FORM, **SHIPPED, description="Order 1")
    for other in (FORM | SHIPPED, FORM | {"description": "Order 1"}):
        assert error(await client.post(INTENTS, "a", **other)) == (400, "idempotency_error", None)


async def test_what_is_not_there_is_a_404(client: Client) -> None:
    for path in (f"{INTENTS}/pi_1", "/v1/refunds/re_1"):
        assert error(await client.get(path)) == (404, INVALID, "resource_missing")
    assert error(await client.post(f"{INTENTS}/pi_1/confirm")) == (404, INVALID, "resource_missing")
    assert error(await client.get("/v1/customers")) == (404, INVALID, None)


def test_every_payment_method_of_the_simulated_provider_is_known_and_ends_the_same() -> None:
    assert simulated.ACCEPTED == PAYS
    assert simulated.DECLINE_CODES.keys() == DECLINES.keys() | AUTHENTICATES


# Refunds


async def test_no_more_is_given_back_than_was_captured(client: Client) -> None:
    intent = await client.an_intent()
    assert error(await client.post("/v1/refunds", payment_intent=intent)) == (400, INVALID, None)
    await client.post(f"{INTENTS}/{intent}/confirm")
    first = (await client.post("/v1/refunds", payment_intent=intent, amount=4000)).json()
    assert (first["status"], first["amount"], first["payment_intent"]) == ("succeeded", 4000, intent)
    assert error(await client.post("/v1/refunds", payment_intent=intent, amount=658)) == (400, INVALID, None)
    rest = (await client.post("/v1/refunds", payment_intent=intent)).json()
    assert rest["amount"] == 657
    refused = await client.post("/v1/refunds", payment_intent=intent)
    assert error(refused) == (400, INVALID, "charge_already_refunded")
    assert (await client.get(f"/v1/refunds/{first['id']}")).json() == first
    assert (await client.get("/v1/refunds", payment_intent=intent)).json()["data"] == [rest, first]


async def test_a_refund_fails_where_the_card_says_so_and_the_money_can_be_given_back_again(
    client: Client,
) -> None:
    client.server.timing.failing_refunds = 1
    intent = await client.an_intent("pm_card_refundFail")
    await client.post(f"{INTENTS}/{intent}/confirm")
    failed = (await client.post("/v1/refunds", payment_intent=intent)).json()
    assert (failed["status"], failed["failure_reason"]) == ("failed", "expired_or_canceled_card")
    assert client.server.totals().given_back == {}
    second = (await client.post("/v1/refunds", payment_intent=intent)).json()
    assert second["status"] == "succeeded"
    assert client.server.totals().given_back == {"brl": 4657}


async def test_a_refund_can_fail_after_it_has_succeeded(client: Client) -> None:
    client.server.timing.failing_refund_seconds = 3600.0
    intent = await client.an_intent("pm_card_refundFail")
    await client.post(f"{INTENTS}/{intent}/confirm")
    client.server.ago = 2 * 3600.0
    refund = (await client.post("/v1/refunds", payment_intent=intent)).json()
    assert refund["status"] == "succeeded"
    client.server.ago = 0.0
    assert (await client.get(f"/v1/refunds/{refund['id']}")).json()["status"] == "failed"


async def test_a_refund_is_pending_for_a_while_where_the_card_says_so(client: Client) -> None:
    client.server.timing.pending_refund_seconds = 3600.0
    intent = await client.an_intent("pm_card_pendingRefund")
    await client.post(f"{INTENTS}/{intent}/confirm")
    client.server.ago = 2 * 3600.0
    refund = (await client.post("/v1/refunds", payment_intent=intent)).json()
    assert (refund["status"], refund["pending_reason"]) == ("pending", "processing")
    refused = await client.post("/v1/refunds", payment_intent=intent)
    assert error(refused) == (400, INVALID, "charge_already_refunded")
    client.server.ago = 0.0
    [listed] = (await client.get("/v1/refunds", payment_intent=intent)).json()["data"]
    assert (listed["status"], listed["pending_reason"]) == ("succeeded", None)


# Idempotency keys: https://docs.stripe.com/api/idempotent_requests


async def test_the_first_answer_to_a_key_is_told_again(client: Client) -> None:
    first, second = await client.post(INTENTS, "a", **FORM), await client.post(INTENTS, "a", **FORM)
    assert first.content == second.content
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"
    assert client.server.totals().intents == {"requires_confirmation": 1}


async def test_the_order_of_parameters_does_not_matter_and_their_values_do(client: Client) -> None:
    await client.post(INTENTS, "a", **FORM)
    assert (await client.post(INTENTS, "a", **dict(reversed(FORM.items())))).status_code == 200
    other = await client.post(INTENTS, "a", **FORM | {"amount": 4658})
    assert error(other) == (400, "idempotency_error", None)
    intent = await client.an_intent()
    assert error(await client.post(f"{INTENTS}/{intent}/confirm", "a")) == (400, "idempotency_error", None)


async def test_a_decline_and_a_refusal_in_mid_work_are_saved_with_their_keys(client: Client) -> None:
    intent = await client.an_intent("pm_card_chargeDeclined")
    first = await client.post(f"{INTENTS}/{intent}/confirm", "a")
    await client.post(f"{INTENTS}/{intent}/cancel")
    second = await client.post(f"{INTENTS}/{intent}/confirm", "a")
    assert (second.status_code, second.content) == (402, first.content)
    third = await client.post(f"{INTENTS}/{intent}/confirm", "b")
    assert error(third) == UNEXPECTED
    assert (await client.post(f"{INTENTS}/{intent}/confirm", "b")).headers["Idempotent-Replayed"] == "true"


@pytest.mark.parametrize("behaviour", [Behaviour.SAVED_ERROR_BEFORE, Behaviour.SAVED_ERROR_AFTER])
async def test_an_error_of_its_own_is_saved_too(client: Client, behaviour: Behaviour) -> None:
    order_id = uuid4()
    client.server.fail(order_id, Step.CREATE, behaviour)
    form = FORM | {"metadata__order_id": order_id}
    for replayed in (None, "true"):
        answer = await client.post(INTENTS, "a", **form)
        assert error(answer) == (500, "api_error", None)
        assert answer.headers.get("Idempotent-Replayed") == replayed
    assert len(client.server.of_order(order_id)) == (behaviour is Behaviour.SAVED_ERROR_AFTER)


async def test_a_key_is_forgotten_after_its_time_and_then_the_work_is_done_again(client: Client) -> None:
    first = await client.post(INTENTS, "a", **FORM)
    client.server.timing.key_seconds = 0.0
    second = await client.post(INTENTS, "a", **FORM)
    assert first.json()["id"] != second.json()["id"]
    client.server.timing.key_seconds = 86_400.0
    assert (await client.post(INTENTS, "a", **FORM)).content == second.content
    client.server.forget_keys()
    assert (await client.post(INTENTS, "a", **FORM)).json()["id"] != second.json()["id"]


async def test_a_key_is_in_use_until_its_request_is_answered(client: Client) -> None:
    order_id = uuid4()
    form = FORM | {"metadata__order_id": order_id}
    client.server.fail(order_id, Step.CREATE, Behaviour.SLOW)
    slow = asyncio.create_task(client.post(INTENTS, "a", **form))

    async def keys_in_use() -> set[str]:
        return client.server.api.in_use

    async def second() -> httpx.Response:
        return await client.post(INTENTS, "a", **form)

    await eventually(keys_in_use, lambda keys: keys == {"a"})
    assert error(await second()) == (409, INVALID, "idempotency_key_in_use")
    first = await slow
    assert first.status_code == 200
    assert (await second()).content == first.content
    assert len(client.server.of_order(order_id)) == 1


# Lists and search


async def test_a_list_is_newest_first_and_read_to_its_end_page_by_page(client: Client) -> None:
    made = [await client.an_intent() for _ in range(23)]
    default = (await client.get(INTENTS)).json()
    assert (len(default["data"]), default["has_more"], default["object"]) == (10, True, "list")
    read: list[str] = []
    more: dict[str, Any] = {}
    while True:
        page = (await client.get(INTENTS, limit=7, **more)).json()
        read += [intent["id"] for intent in page["data"]]
        if not page["has_more"]:
            break
        more = {"starting_after": read[-1]}
    assert read == made[::-1]
    newer = (await client.get(INTENTS, limit=2, ending_before=made[0])).json()
    assert [intent["id"] for intent in newer["data"]] == [made[2], made[1]]
    assert error(await client.get(INTENTS, starting_after="pi_1")) == (400, INVALID, "resource_missing")


@pytest.mark.parametrize("limit", ["0", "101", "x"])
async def test_a_page_holds_one_to_a_hundred(client: Client, limit: str) -> None:
    for path in (INTENTS, "/v1/refunds"):
        assert error(await client.get(path, limit=limit))[:2] == (400, INVALID)


async def test_search_finds_by_metadata_what_is_old_enough_and_tells_what_it_was(client: Client) -> None:
    intent = await client.an_intent(metadata__payment_id="p1", metadata__order_id="o1")
    await client.an_intent(metadata__payment_id="p2")
    await client.post(f"{INTENTS}/{intent}/confirm")

    async def search(query: str) -> list[tuple[str, str]]:
        found = (await client.get(f"{INTENTS}/search", query=query)).json()
        assert found["object"] == "search_result"
        return [(each["id"], each["status"]) for each in found["data"]]

    query = "metadata['payment_id']:'p1' AND metadata[\"order_id\"]:\"o1\""
    assert await search(query) == [(intent, "succeeded")]
    assert await search("metadata['payment_id']:'p1' AND metadata['order_id']:'o2'") == []
    client.server.timing.search_seconds = 60.0
    assert await search(query) == []
    found = client.server.api.account.ledger.with_metadata([("payment_id", "p1")])
    [(_, created_at, changed_at)] = found
    assert created_at < changed_at
    for broken in ("", "payment_id:p1", "metadata['payment_id']:'p1' OR metadata['order_id']:'o1'"):
        assert error(await client.get(f"{INTENTS}/search", query=broken))[:2] == (400, INVALID)
