"""An order over HTTP: accepted, priced, stored and read back."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import httpx
import pytest
from fastapi import FastAPI
from pydantic import TypeAdapter

from chassis import problems
from chassis.body import MAX_BYTES
from events import envelope
from events.contracts import OrderCreated
from events.errors import DatabaseUnavailable
from services.order.documents import Order
from services.order.requests import NewOrder
from tests.order_service import Json, OrderService, a_new_item, a_new_order, a_rich_order, order_service


@pytest.fixture
async def service(service_url: Callable[[str], Awaitable[str]]) -> AsyncIterator[OrderService]:
    async with order_service(await service_url("order")) as service:
        yield service


async def announced(service: OrderService) -> list[OrderCreated]:
    async with service.transactions() as tx:
        bodies = [record["body"] for record in await tx.fetch("SELECT body FROM outbox ORDER BY id")]
    events = [event for body in bodies for event in envelope.decode(body)[0]]
    assert all(isinstance(event, OrderCreated) for event in events)
    return [event for event in events if isinstance(event, OrderCreated)]


async def test_the_answer_to_post_is_the_order_so_far(service: OrderService) -> None:
    answer = await service.http.post("/orders", json=a_new_order())
    assert answer.status_code == 201
    assert answer.headers["content-type"] == "application/json"
    assert "idempotency-replayed" not in answer.headers
    placed = answer.json()
    assert answer.headers["location"] == f"/orders/{placed['id']}"
    created_at, [line] = placed["created_at"], placed["timeline"]
    assert abs(datetime.fromisoformat(created_at) - datetime.now(UTC)).total_seconds() < 60
    assert created_at.endswith("Z")
    assert line["time"].endswith("Z")
    [event] = await announced(service)
    assert placed == {
        "id": str(event.subject),
        "reference": "WEB-1042",
        "status": "ORDER_CREATED",
        "reason": None,
        "waiting": None,
        "created_at": created_at,
        "currency": "BRL",
        "prices": "net",
        "tax_rounding": "line",
        "subtotal": "39.80",
        "tax": "6.77",
        "total": "46.57",
        "items": [
            {
                "id": "1",
                "sku": "MUG-01",
                "name": "Mug",
                "quantity": 2,
                "unit_price": "19.90",
                "discount": None,
                "order_discount": "0.00",
                "tax_rate": "0.17",
                "tax_category": "S",
                "exemption_reason": None,
                "subtotal": "39.80",
                "tax": "6.77",
                "total": "46.57",
            }
        ],
        "discount": None,
        "shipping": None,
        "reverse_charge": False,
        "customer": {
            "name": "Ana Souza",
            "email": "ana@example.com",
            "locale": "pt-BR",
            "company": None,
            "phone": None,
            "tax_id": None,
        },
        "shipping_address": {
            "line1": "Rua Augusta 1",
            "line2": None,
            "city": "São Paulo",
            "state": None,
            "postal_code": "01304-001",
            "country": "BR",
            "name": None,
            "company": None,
        },
        "billing_address": None,
        "note": None,
        "metadata": {},
        "invoice": None,
        "payment": None,
        "shipment": None,
        "timeline": [
            {"type": "ORDER_CREATED", "time": line["time"], "event_id": str(event.id), "detail": {}}
        ],
    }
    assert await service.read(placed["id"]) == placed


async def test_an_order_takes_the_shortcut_past_fastapi(
    service: OrderService, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def blocked(*_: object) -> None:
        pytest.fail("the order took the long way")

    monkeypatch.setattr(FastAPI, "__call__", blocked)
    await service.place()


async def test_optional_fields_may_be_left_out(service: OrderService) -> None:
    order = a_new_order(customer={"name": "Ana", "email": "ana@example.com"})
    del order["reference"]
    del order["items"][0]["tax_rate"]
    answer = await service.http.post("/orders", json=order)
    placed = answer.json()
    assert (placed["reference"], placed["customer"]["locale"]) == (None, None)
    assert (placed["subtotal"], placed["tax"], placed["total"]) == ("39.80", "0.00", "39.80")


@pytest.mark.parametrize(
    ("currency", "prices", "expected"),
    [
        ("EUR", [("19.90", 2, "0.17"), ("4.99", 3, "0.055")], ("54.77", "7.59", "62.36")),
        ("JPY", [("1980", 1, "0.1"), ("105", 1, "0.1")], ("2085", "209", "2294")),
        ("KWD", [("19.905", 3, "0.053")], ("59.715", "3.165", "62.880")),
    ],
)
async def test_amounts_are_strings_in_the_currencys_decimals(
    service: OrderService,
    currency: str,
    prices: list[tuple[str, int, str]],
    expected: tuple[str, str, str],
) -> None:
    items = [
        a_new_item(sku=f"SKU-{number}", unit_price=price, quantity=quantity, tax_rate=rate)
        for number, (price, quantity, rate) in enumerate(prices)
    ]
    placed = await service.place(currency=currency, items=items)
    assert (placed["subtotal"], placed["tax"], placed["total"]) == expected
    assert [item["unit_price"] for item in placed["items"]] == [price for price, _, _ in prices]


async def test_the_order_in_the_event_is_the_one_in_the_answer(service: OrderService) -> None:
    placed = await service.place(items=[a_new_item(), a_new_item(sku="TEA", unit_price="4.99")])
    [event] = await announced(service)
    order = event.data.order
    assert (str(order.id), order.total, order.currency) == (placed["id"], 5825, "BRL")
    assert [(item.sku, item.subtotal, item.tax, item.total) for item in order.items] == [
        ("MUG-01", 3980, 677, 4657),
        ("TEA", 998, 170, 1168),
    ]
    assert event.source == "/services/order"


async def test_the_largest_order_fits_into_one_message(service: OrderService) -> None:
    items = [a_new_item(sku=f"{number:064}", name="\U0001f3e0" * 100) for number in range(100)]
    order = a_new_order(items=items)
    body = json.dumps(order, ensure_ascii=False, separators=(",", ":")).encode()
    order["items"][0]["name"] += "x" * min(100, MAX_BYTES - len(body))
    body = json.dumps(order, ensure_ascii=False, separators=(",", ":")).encode()
    assert len(body) <= MAX_BYTES
    answer = await service.http.post("/orders", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 201, answer.text
    async with service.transactions() as tx:
        [record] = await tx.fetch("SELECT length(body) AS size FROM outbox")
    assert len(body) / 2 < record["size"] < envelope.MAX_BYTES


async def test_the_openapi_document_describes_the_api(service: OrderService) -> None:
    description = (await service.http.get("/openapi.json")).json()
    post, get = description["paths"]["/orders"]["post"], description["paths"]["/orders/{order_id}"]["get"]
    assert post["responses"].keys() == {"201", "default"}
    assert get["responses"].keys() == {"200", "default"}
    for operation in (post, get):
        schema = operation["responses"]["default"]["content"]["application/problem+json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/ProblemDocument"}
    assert {"ProblemDocument", "Fault", "NewOrder", "Order"} <= description["components"]["schemas"].keys()
    assert "HTTPValidationError" not in description["components"]["schemas"]
    assert [parameter["name"] for parameter in post["parameters"]] == ["Idempotency-Key"]
    assert post["responses"]["201"]["headers"].keys() == {"Location", "Idempotency-Replayed"}
    for example in description["components"]["schemas"]["NewOrder"]["examples"]:
        NewOrder.model_validate(example)


@pytest.mark.parametrize("order", [a_new_order(), a_rich_order()], ids=["plain", "rich"])
async def test_an_answer_matches_the_openapi_document(service: OrderService, order: Json) -> None:
    answer = await service.http.post("/orders", json=order)
    document = TypeAdapter(Order)
    assert document.dump_json(document.validate_json(answer.content)) == answer.content


async def test_everything_that_was_sent_is_shown_where_it_belongs(service: OrderService) -> None:
    sent = a_rich_order()
    answer = await service.http.post("/orders", json=sent)
    placed = answer.json()
    assert await service.read(placed["id"]) == placed
    same = ("reference", "currency", "prices", "tax_rounding", "note", "metadata")
    assert {name: placed[name] for name in same} == {name: sent[name] for name in same}
    assert placed["customer"] == sent["customer"]
    absent = {"line2": None, "state": None, "name": None, "company": None}
    assert placed["shipping_address"] == absent | sent["shipping_address"]
    assert placed["billing_address"] == absent | sent["billing_address"]
    assert placed["items"] == [
        {
            "id": "mug",
            "sku": "MUG-01",
            "name": "Mug",
            "quantity": 12,
            "unit_price": "9.99",
            "discount": {"amount": "11.99", "rate": "0.1", "name": "From ten pieces"},
            "order_discount": "3.40",
            "tax_rate": "0.19",
            "tax_category": "S",
            "exemption_reason": None,
            "subtotal": "87.80",
            "tax": "16.69",
            "total": "104.49",
        },
        {
            "id": "2",
            "sku": "BEANS-7",
            "name": "Coffee beans by weight, in kg",
            "quantity": "2.125",
            "unit_price": "23.9999",
            "discount": None,
            "order_discount": "1.60",
            "tax_rate": "0.07",
            "tax_category": "S",
            "exemption_reason": None,
            "subtotal": "46.17",
            "tax": "3.23",
            "total": "49.40",
        },
    ]
    assert placed["discount"] == {"amount": "5.00", "rate": None, "name": "Welcome"}
    assert placed["shipping"] == {
        "name": "Parcel",
        "price": "4.90",
        "tax_rate": "0.19",
        "tax_category": "S",
        "exemption_reason": None,
        "subtotal": "4.12",
        "tax": "0.78",
        "total": "4.90",
    }
    assert (placed["subtotal"], placed["tax"], placed["total"]) == ("138.09", "20.70", "158.79")


async def test_gross_prices_are_what_the_customer_pays(service: OrderService) -> None:
    items = [a_new_item(quantity=1, unit_price="9.99", tax_rate="0.19")]
    placed = await service.place(currency="EUR", prices="gross", items=items)
    assert (placed["subtotal"], placed["tax"], placed["total"]) == ("8.39", "1.60", "9.99")


async def test_with_reverse_charge_every_line_has_its_category(service: OrderService) -> None:
    company = a_new_order()["customer"] | {"company": "Weber GmbH", "tax_id": "DE 136 695 976"}
    address = {"line1": "Königstraße 1", "city": "Stuttgart", "postal_code": "70173", "country": "DE"}
    placed = await service.place(
        customer=company,
        shipping_address=address,
        currency="EUR",
        reverse_charge=True,
        items=[a_new_item(tax_rate="0"), a_new_item(tax_rate="0")],
        shipping={"price": "4.90"},
    )
    assert placed["reverse_charge"] is True
    assert placed["customer"]["tax_id"] == "DE136695976"
    assert [part["tax_category"] for part in (*placed["items"], placed["shipping"])] == ["AE"] * 3
    assert (placed["shipping"]["name"], placed["tax"], placed["total"]) == ("Shipping", "0.00", "84.50")


@pytest.mark.parametrize("method", [{}, {"payment_method": None}, {"payment_method": "pm_card_visa"}])
async def test_an_order_over_nothing_needs_no_payment_method(service: OrderService, method: Json) -> None:
    body = a_new_order(items=[a_new_item(discount={"rate": "1", "name": "Gift"})])
    del body["payment_method"]
    answer = await service.http.post("/orders", json=body | method)
    assert answer.status_code == 201, answer.text
    assert answer.json()["total"] == "0.00"


async def test_an_order_that_an_older_version_accepted_is_a_replay_although_it_is_refused_now(
    service: OrderService, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = a_new_order(shipping_address=a_new_order()["shipping_address"] | {"postal_code": "1304"})
    key = {"Idempotency-Key": "before the upgrade"}
    with monkeypatch.context() as older:
        older.setattr("services.order.postal.has_form", lambda *_: True)
        first = await service.http.post("/orders", json=body, headers=key)
    assert first.status_code == 201, first.text
    again = await service.http.post("/orders", json=body, headers=key)
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["idempotency-replayed"] == "true"
    assert (await service.http.post("/orders", json=body)).status_code == 422
    other = await service.http.post("/orders", json=body | {"reference": "WEB-2"}, headers=key)
    assert (other.status_code, other.json()["type"]) == (422, "urn:orderflow:problem:invalid_request")


@pytest.fixture
async def failing() -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    problems.install(app)

    @app.get("/defect")
    async def defect() -> None:
        raise RuntimeError("secret")

    @app.get("/unavailable")
    async def unavailable() -> None:
        raise DatabaseUnavailable("secret", retry_after=2.5)

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://order", trust_env=False) as client:
        yield client


async def test_a_defect_is_a_500_that_leaks_nothing_and_is_found_in_the_log(
    failing: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await failing.get("/defect")
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "secret" not in answer.text
    [record] = caplog.records
    assert answer.json()["instance"] in record.getMessage()
    assert record.exc_info


async def test_an_outage_is_a_503_with_retry_after(failing: httpx.AsyncClient) -> None:
    answer = await failing.get("/unavailable")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "3")
    assert "secret" not in answer.text
