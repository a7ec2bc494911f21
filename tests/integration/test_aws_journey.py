"""The whole journey on AWS: API Gateway's events in, mails out, and failures in between."""

import asyncio
import json
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from events import envelope
from sandbox.demo import examples
from tests.aws_server import Cloud
from tests.factories import order_created
from tests.faults.proxy import Proxy, proxy_to
from tests.integration.mail_server import MailServer, mail_server
from tests.lambda_functions import (
    BINDINGS,
    SCHEDULED,
    SERVICES,
    Functions,
    enveloped,
    functions,
    http_api,
    queue_event,
    rest_api,
)
from tests.order_service import a_new_order
from tests.waiting import eventually

JSON = {"content-type": "application/json"}
VISIBILITY_SECONDS = 2
MAX_RECEIVES = 2


@dataclass
class Shop:
    """The functions of one system, its mail server, and a proxy before the invoice service's database."""

    functions: Functions
    cloud: Cloud
    mails: MailServer
    invoice_database: Proxy
    owner_url: str

    async def place(self, **changes: Any) -> str:
        """Places an order through the HTTP API; returns its id."""
        order = json.dumps(a_new_order(**changes))
        answer = await self.functions.invoke("order", http_api("POST", "/orders", order, headers=JSON))
        assert answer["statusCode"] == 201, answer
        assert answer["isBase64Encoded"] is False
        placed = json.loads(answer["body"])
        assert answer["headers"]["location"] == f"/orders/{placed['id']}"
        return str(placed["id"])

    async def order(self, order_id: str) -> dict[str, Any]:
        """The order's document, by the REST API."""
        answer = await self.functions.invoke("order", rest_api("GET", f"/orders/{order_id}"))
        assert answer["statusCode"] == 200, answer
        order: dict[str, Any] = json.loads(answer["body"])
        return order

    async def finished(self, order_id: str, status: str) -> dict[str, Any]:
        """The order, once all work that its events cause is done."""

        async def read() -> dict[str, Any]:
            await self.functions.settle()
            return await self.order(order_id)

        return await eventually(read, lambda order: order["status"] == status)

    async def published(self) -> list[tuple[str, str]]:
        """Type and body of every message in the services' outboxes."""
        connection = await asyncpg.connect(self.owner_url.replace("+asyncpg", ""))
        try:
            found = []
            for service in SERVICES:
                rows = await connection.fetch(f'SELECT type, body, state FROM "{service}".outbox')
                assert all(row["state"] == "published" for row in rows), (service, rows)
                found += [(row["type"], row["body"].decode()) for row in rows]
            return found
        finally:
            await connection.close()

    def publish(self, event_type: str, body: str) -> None:
        """Puts a message on the topic, as a relay that had lost its confirm would."""
        attributes: Any = {"type": {"DataType": "String", "StringValue": event_type}}
        self.cloud.sns.publish(TopicArn=self.cloud.topic_arn, Message=body, MessageAttributes=attributes)


@pytest.fixture
async def shop(
    aws: str,
    monkeypatch: pytest.MonkeyPatch,
    fresh_database: str,
    service_url: Callable[[str], Awaitable[str]],
) -> AsyncIterator[Shop]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws)
    cloud = Cloud(
        aws,
        f"test-{uuid.uuid4().hex[:12]}-",
        visibility_seconds=VISIBILITY_SECONDS,
        max_receives=MAX_RECEIVES,
    )
    await asyncio.to_thread(cloud.declare, BINDINGS)
    urls = {service: await service_url(service) for service in (*SERVICES, "provider", "carrier")}
    async with mail_server() as mails, proxy_to(urls["invoice"]) as invoice_database:
        urls["invoice"] = invoice_database.through(urls["invoice"])
        environment = {service: {"DATABASE_URL": urls[service]} for service in SERVICES}
        environment["billing"]["PROVIDER_DATABASE_URL"] = urls["provider"]
        environment["shipment"]["CARRIER_DATABASE_URL"] = urls["carrier"]
        environment["email"]["SMTP_URL"] = mails.url
        async with functions(cloud, environment) as running:
            yield Shop(running, cloud, mails, invoice_database, fresh_database)
    await asyncio.to_thread(cloud.remove)


async def test_an_order_becomes_a_parcel_and_four_mails_and_duplicates_change_nothing(shop: Shop) -> None:
    order_id = await shop.place()
    order = await shop.finished(order_id, "SHIPPED")
    await shop.functions.settle()
    assert [line["type"] for line in order["timeline"]] == [
        "ORDER_CREATED",
        "INVOICE_CREATED",
        "PAYMENT_CONFIRMED",
        "SHIPPED",
    ]
    assert len(await shop.mails.received(4)) == 4

    number = order["invoice"]["number"]
    answer = await shop.functions.invoke("invoice", http_api("GET", f"/invoices/{number}"))
    assert (answer["statusCode"], json.loads(answer["body"])["order_id"]) == (200, order_id)

    duplicates = await shop.published() * 2
    random.shuffle(duplicates)
    for event_type, body in duplicates:
        await asyncio.to_thread(shop.publish, event_type, body)
    await shop.functions.settle()
    for service in SERVICES:
        wanted = [enveloped(body, kind) for kind, body in duplicates if kind in BINDINGS[service]]
        assert await shop.functions.invoke(service, queue_event(*wanted, receives=2)) == {
            "batchItemFailures": []
        }
        assert await shop.functions.invoke(service, SCHEDULED) is None
    assert await shop.order(order_id) == order
    assert len(await shop.mails.received(4)) == 4


async def test_a_rich_orders_totals_and_invoice_are_right_line_by_line(shop: Shop) -> None:
    """Net prices, discounts on the lines, an eighth of a kilogram; expected.toml has the arithmetic."""
    [example] = [each.order for each in examples.load(examples.FOLDER) if each.name == "greece-saffron"]
    soap = example["items"][1]["discount"]["name"]
    order = await shop.finished(await shop.place(**example), "SHIPPED")
    assert (order["subtotal"], order["tax"], order["total"]) == ("226.82", "31.55", "258.37")

    number = order["invoice"]["number"]
    answer = await shop.functions.invoke("invoice", http_api("GET", f"/invoices/{number}"))
    invoice = json.loads(answer["body"])
    assert [
        (line["quantity"], line["unit_price"], line["discount"], line["subtotal"], line["tax"], line["total"])
        for line in invoice["items"]
    ] == [
        ("0.125", "1849.9965", discount("23.13", rate="0.10"), "208.12", "27.06", "235.18"),
        (6, "3.45", discount("2.00", name=soap), "18.70", "4.49", "23.19"),
    ]
    assert [(tax["rate"], tax["net"], tax["tax"]) for tax in invoice["taxes"]] == [
        ("0.13", "208.12", "27.06"),
        ("0.24", "18.70", "4.49"),
    ]
    assert (invoice["subtotal"], invoice["tax"], invoice["total"]) == ("226.82", "31.55", "258.37")
    await shop.functions.settle()
    assert len(await shop.mails.received(4)) == 4


def discount(amount: str, rate: str | None = None, name: str | None = None) -> dict[str, str | None]:
    return {"amount": amount, "rate": rate, "name": name}


async def test_a_declined_payment_ends_the_order_and_a_refused_parcel_is_refunded(
    shop: Shop,
) -> None:
    declined = await shop.place(payment_method="pm_card_chargeDeclined")
    address = a_new_order()["shipping_address"] | {"country": "AQ"}
    unserved = await shop.place(shipping_address=address)
    order = await shop.finished(declined, "PAYMENT_FAILED")
    assert order["reason"]["code"] == "card_declined"
    order = await shop.finished(unserved, "PAYMENT_REFUNDED")
    assert [line["type"] for line in order["timeline"]][-2:] == ["SHIPMENT_ERROR", "PAYMENT_REFUNDED"]
    await shop.functions.settle()
    assert len(await shop.mails.received(8)) == 8


async def test_an_undecodable_message_that_can_not_be_dead_lettered_comes_again_without_its_neighbours(
    shop: Shop,
) -> None:
    """A partial batch failure; then the dead letter with its reason."""
    dead = shop.cloud.address_of("invoice-dead")
    [message] = envelope.messages([order_created()])
    await asyncio.to_thread(shop.cloud.sqs.delete_queue, QueueUrl=dead)
    event = queue_event("not JSON", message.body.decode())
    answer = await shop.functions.invoke("invoice", event)
    assert answer == {"batchItemFailures": [{"itemIdentifier": "message-0"}]}
    await asyncio.to_thread(shop.cloud.sqs.create_queue, QueueName=dead.rpartition("/")[2])
    assert await shop.functions.invoke("invoice", event) == {"batchItemFailures": []}
    [letter] = await asyncio.to_thread(shop.cloud.take, dead)
    assert letter["Body"] == "not JSON"
    assert letter["MessageAttributes"]["reason"]["StringValue"].startswith(
        "The message is not a CloudEvents batch"
    )
    numbers = [json.loads(body) for kind, body in await shop.published() if kind == "INVOICE_CREATED"]
    assert Counter(event["subject"] for events in numbers for event in events).total() == 1


async def test_an_outage_gives_messages_back_and_dead_letters_are_redriven(shop: Shop) -> None:
    """The queue's own redrive is a backstop, here after two receives."""
    first = await shop.place()
    await shop.finished(first, "SHIPPED")
    shop.functions.apis["invoice"].timeout_seconds = 4
    await shop.invoice_database.refuse()
    order_id = await shop.place()

    async def given_up() -> int:
        assert await shop.functions.poll("invoice") == 0
        return await asyncio.to_thread(shop.cloud.dead, "invoice")

    assert await eventually(given_up, bool) == 1
    await shop.functions.settle()
    assert (await shop.order(order_id))["status"] == "ORDER_CREATED"

    await shop.invoice_database.accept()
    shop.functions.apis["invoice"].timeout_seconds = 60
    await asyncio.to_thread(shop.cloud.redrive, "invoice")
    await shop.finished(order_id, "SHIPPED")


async def test_requests_and_answers_are_what_api_gateway_makes_of_them(shop: Shop) -> None:
    order = json.dumps(a_new_order(reference="São Paulo 1042"))
    keyed = JSON | {"idempotency-key": "one"}
    first = await shop.functions.invoke(
        "order", http_api("POST", "/orders", order, headers=keyed, in_base64=True)
    )
    assert (first["statusCode"], first["headers"]["content-type"]) == (201, "application/json")
    assert json.loads(first["body"])["reference"] == "São Paulo 1042"
    titled = {"Content-Type": "application/json", "Idempotency-Key": "one"}
    again = await shop.functions.invoke("order", rest_api("POST", "/orders", order, headers=titled))
    assert (again["statusCode"], again["headers"]["idempotency-replayed"]) == (201, "true")
    assert json.loads(again["body"]) == json.loads(first["body"])
    for refused in (
        await shop.functions.invoke("order", http_api("POST", "/orders", "{", headers=JSON)),
        await shop.functions.invoke("order", rest_api("POST", "/orders", "{", headers=JSON)),
    ):
        assert (refused["statusCode"], refused["isBase64Encoded"]) == (400, False)
        assert refused["headers"]["content-type"] == "application/problem+json"
        assert json.loads(refused["body"])["status"] == 400
    for event in (http_api("GET", "/healthz"), rest_api("GET", "/readyz")):
        assert (await shop.functions.invoke("order", event))["statusCode"] == 200
    missing = await shop.functions.invoke("order", http_api("DELETE", "/nothing"))
    assert missing["statusCode"] == 404
