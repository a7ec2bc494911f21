"""An issued invoice over HTTP, and orders that are never invoiced."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp

from chassis import database, problems
from chassis.application import application
from chassis.service import open_service
from events.contracts import NO_POSTAL_CODE, Address, InvoiceCreated, OrderCreated, Seller
from events.envelope import decode, messages
from events.transactions import Transactions
from services.invoice import api
from services.invoice.domain import EXAMPLE_SELLER
from services.invoice.handlers import Uninvoiceable, issue_invoices
from services.invoice.main import SERVICE
from services.invoice.settings import InvoiceSettings
from tests.factories import a_free_order, a_rich_order, a_seller, an_item, an_order, order_created
from tests.pages import ROOT
from tests.waiting import patient_bus


@pytest.fixture
async def invoices(service_url: Callable[[str], Awaitable[str]]) -> AsyncIterator[Transactions]:
    async with database.connect(await service_url("invoice"), pool=2, application="test") as pool:
        yield Transactions(pool)


@pytest.fixture
def app(invoices: Transactions) -> FastAPI:
    app = FastAPI()
    problems.install(app)
    app.include_router(api.routes(invoices))
    return app


def client_of(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://invoice", trust_env=False)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


async def issued(transactions: Transactions, event: OrderCreated, seller: Seller = EXAMPLE_SELLER) -> str:
    """The number of the event's invoice."""
    async with transactions() as tx:
        await issue_invoices([event], tx, seller)
        [created] = tx.events
    assert isinstance(created, InvoiceCreated)
    return created.data.invoice.number


async def test_the_document_shows_the_invoice_in_full(
    invoices: Transactions, client: httpx.AsyncClient
) -> None:
    tea = an_item(
        sku="TEA",
        name="Tea",
        quantity=1,
        unit_price=999,
        tax_rate="0.055",
        subtotal=999,
        tax=55,
        total=1054,
    )
    order = an_order(items=(an_item(), tea))
    number = await issued(invoices, order_created(order))
    answer = await client.get(f"/invoices/{number}")
    assert answer.status_code == 200
    document = answer.json()
    assert document.pop("issued_at")[:10] == document.pop("issued_on")
    address = {
        "name": None,
        "company": None,
        "line1": "Rua Augusta 1",
        "line2": None,
        "city": "São Paulo",
        "state": None,
        "postal_code": "01304-001",
        "country": "BR",
    }
    assert document == {
        "number": number,
        "seller": {
            "name": "Example Shop",
            "address": None,
            "email": None,
            "tax_id": None,
            "registration": None,
            "time_zone": "UTC",
        },
        "order_id": str(order.id),
        "reference": "WEB-1042",
        "customer": {
            "name": "Ana Souza",
            "email": "ana@example.com",
            "locale": "pt-BR",
            "company": None,
            "phone": None,
            "tax_id": None,
        },
        "shipping_address": address,
        "billing_address": address,
        "currency": "BRL",
        "prices": "net",
        "tax_rounding": "line",
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
            },
            {
                "id": "2",
                "sku": "TEA",
                "name": "Tea",
                "quantity": 1,
                "unit_price": "9.99",
                "discount": None,
                "order_discount": "0.00",
                "tax_rate": "0.055",
                "tax_category": "S",
                "exemption_reason": None,
                "subtotal": "9.99",
                "tax": "0.55",
                "total": "10.54",
            },
        ],
        "discount": None,
        "shipping": None,
        "subtotal": "49.79",
        "tax": "7.32",
        "taxes": [
            {"category": "S", "rate": "0.055", "net": "9.99", "tax": "0.55", "notices": []},
            {"category": "S", "rate": "0.17", "net": "39.80", "tax": "6.77", "notices": []},
        ],
        "total": "57.11",
        "reverse_charge": False,
        "notices": [],
        "note": None,
    }


async def test_the_document_shows_all_that_an_order_can_say(
    invoices: Transactions, client: httpx.AsyncClient
) -> None:
    number = await issued(invoices, order_created(a_rich_order()), a_seller())
    document = (await client.get(f"/invoices/{number}")).json()
    berlin = {"line2": None, "city": "Berlin", "state": None, "country": "DE"}
    assert document["seller"] == {
        "name": "Example Shop",
        "address": berlin | {"line1": "Ladenstraße 3", "postal_code": "10117"},
        "email": "shop@example.com",
        "tax_id": a_seller().tax_id,
        "registration": "HRB 12345, Berlin",
        "time_zone": "Europe/Berlin",
    }
    assert document["customer"] == {
        "name": "Jo Weber",
        "email": "jo@example.com",
        "locale": "de-DE",
        "company": "Weber GmbH",
        "phone": "+49 30 1234567",
        "tax_id": "DE136695976",
    }
    assert document["shipping_address"]["name"] == "Kim Weber"
    assert document["billing_address"] == berlin | {
        "name": None,
        "company": "Weber GmbH",
        "line1": "Hauptstraße 1",
        "line2": "2. OG",
        "postal_code": "10827",
    }
    assert (document["prices"], document["tax_rounding"]) == ("gross", "line")
    mugs, book, cable = document["items"]
    assert mugs["discount"] == {"amount": "3.98", "rate": "0.1", "name": "Two for less"}
    assert [line["id"] for line in (mugs, book, cable)] == ["mugs", "book", "cable"]
    assert [line["order_discount"] for line in (mugs, book, cable)] == ["2.83", "0.95", "1.22"]
    assert (book["quantity"], cable["quantity"], cable["unit_price"]) == (1, "12.5", "1.2345")
    assert document["discount"] == {"amount": "5.00", "rate": None, "name": "SUMMER5"}
    assert document["shipping"] == {
        "name": "Parcel",
        "price": "4.90",
        "tax_rate": "0.19",
        "tax_category": "S",
        "exemption_reason": None,
        "subtotal": "4.12",
        "tax": "0.78",
        "total": "4.90",
    }
    assert document["taxes"] == [
        {"category": "S", "rate": "0.07", "net": "10.33", "tax": "0.72", "notices": []},
        {"category": "S", "rate": "0.19", "net": "43.78", "tax": "8.32", "notices": []},
    ]
    assert (document["subtotal"], document["tax"], document["total"]) == ("54.11", "9.04", "63.15")
    assert document["note"] == "Please ring twice."


async def test_an_invoice_with_reverse_charge_says_so_in_words(
    invoices: Transactions, client: httpx.AsyncClient
) -> None:
    item = an_item(tax_rate="0", tax_category="AE", subtotal=3980, tax=0, total=3980)
    number = await issued(invoices, order_created(an_order(items=(item,), reverse_charge=True)))
    document = (await client.get(f"/invoices/{number}")).json()
    words = ["Reverse charge: the customer owes the tax."]
    assert (document["reverse_charge"], document["notices"]) == (True, words)
    assert document["taxes"] == [
        {"category": "AE", "rate": "0", "net": "39.80", "tax": "0.00", "notices": words}
    ]


async def test_an_order_over_nothing_gets_an_invoice_like_any_other(
    invoices: Transactions, client: httpx.AsyncClient
) -> None:
    number = await issued(invoices, order_created(a_free_order(), payment_method=None))
    assert (await client.get(f"/invoices/{number}")).json()["total"] == "0.00"


async def test_an_invoice_of_version_1_is_shown_without_a_seller(
    invoices: Transactions, client: httpx.AsyncClient
) -> None:
    snapshot = (ROOT / "tests/samples/version_1/rows/invoice.invoices.snapshot.json").read_bytes()
    order = json.loads(snapshot)
    async with invoices() as tx:
        await tx.execute(
            """INSERT INTO invoices (year, serial, order_id, issued_at, snapshot)
               VALUES (2026, 1, $1, '2026-11-22 23:30:00+00', $2)""",
            order["id"],
            snapshot,
        )
    answer = await client.get("/invoices/2026-000001")
    document = answer.json()
    assert (document["seller"], document["issued_on"]) == (None, "2026-11-22")
    assert document["billing_address"] == document["shipping_address"]
    assert [(line["id"], line["tax_category"]) for line in document["items"]] == [
        ("1", "S"),
        ("2", "S"),
        ("3", "Z"),
    ]
    assert document["total"] == "96.63"
    assert order["payment_method"] not in answer.text


async def test_an_address_without_a_postal_code_shows_none(
    invoices: Transactions, client: httpx.AsyncClient
) -> None:
    address = Address(line1="1 Peak Road", city="Central", postal_code=NO_POSTAL_CODE, country="HK")
    number = await issued(invoices, order_created(an_order(shipping_address=address)))
    assert (await client.get(f"/invoices/{number}")).json()["shipping_address"]["postal_code"] is None


@pytest.mark.parametrize(("currency", "total"), [("JPY", "4657"), ("EUR", "46.57"), ("KWD", "4.657")])
async def test_amounts_have_the_decimals_of_their_currency(
    invoices: Transactions, client: httpx.AsyncClient, currency: str, total: str
) -> None:
    number = await issued(invoices, order_created(an_order(currency=currency)))
    answer = await client.get(f"/invoices/{number}")
    assert (answer.json()["total"], answer.json()["currency"]) == (total, currency)


@pytest.mark.parametrize(
    "number",
    ["2026-000001", "2026-1", "x", "%00", "%ED%A0%80", "2026-000001.pdf", "9" * 3000, "2026-" + "9" * 18],
)
async def test_an_unknown_number_is_not_found(client: httpx.AsyncClient, number: str) -> None:
    answer = await client.get(f"/invoices/{number}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:orderflow:problem:no_such_invoice"
    assert number not in answer.text


@pytest.mark.parametrize("changes", [{"total": 4656}, {"currency": "XTS"}])
async def test_an_order_that_does_not_add_up_is_rejected_and_takes_no_number(
    invoices: Transactions, client: httpx.AsyncClient, changes: dict[str, Any]
) -> None:
    with pytest.raises(Uninvoiceable):
        await issued(invoices, order_created(an_order(**changes)))
    assert (await issued(invoices, order_created())).endswith("-000001")


async def test_the_service_invoices_an_order_and_shows_the_invoice(
    service_url: Callable[[str], Awaitable[str]],
) -> None:
    settings = InvoiceSettings(
        database_url=await service_url("invoice"),
        seller_name="Kiwi Shop",
        seller_time_zone="Pacific/Auckland",
    )
    bus = patient_bus({"invoice": ["ORDER_CREATED"], "probe": ["INVOICE_CREATED"]})
    placed = order_created()
    async with (
        open_service(SERVICE, settings, bus) as running,
        bus.subscribe("probe", ["INVOICE_CREATED"]) as probe,
        client_of(application([running])) as client,
    ):
        service = asyncio.create_task(running.participant.run())
        async with asyncio.timeout(30):
            await asyncio.gather(*(bus.publish(message) for message in messages([placed])))
            [delivery] = await probe.take(1)
            await probe.acknowledge([delivery])
            running.participant.stop()
            await service
        [created], _ = decode(delivery.body)
        assert isinstance(created, InvoiceCreated)
        assert created.data.order == placed.data.order
        details = created.data.invoice
        assert details.seller == Seller(name="Kiwi Shop", time_zone="Pacific/Auckland")
        assert details.issued_on == details.issued_at.astimezone(ZoneInfo("Pacific/Auckland")).date()
        answer = await client.get(f"/invoices/{created.data.invoice.number}")
    assert answer.json()["order_id"] == str(placed.subject)
    assert answer.json()["seller"]["name"] == "Kiwi Shop"
    assert datetime.fromisoformat(answer.json()["issued_at"]) == created.data.invoice.issued_at


async def test_the_openapi_document_describes_the_answers(app: FastAPI) -> None:
    description = app.openapi()
    operation = description["paths"]["/invoices/{number}"]["get"]
    assert operation["tags"] == ["invoices"]
    assert set(operation["responses"]) == {"200", "default"}
    total = description["components"]["schemas"]["InvoiceDocument"]["properties"]["total"]
    assert total["type"] == "string"
    assert "pattern" in total
