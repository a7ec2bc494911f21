"""An issued invoice over HTTP, and orders that are never invoiced."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp

from chassis import database, problems
from chassis.application import application
from chassis.service import open_service
from chassis.settings import ServiceSettings
from events.contracts import NO_POSTAL_CODE, Address, InvoiceCreated, OrderCreated
from events.envelope import decode, messages
from events.transactions import Transactions
from services.invoice import api
from services.invoice.handlers import Uninvoiceable, issue_invoices
from services.invoice.main import SERVICE
from tests.factories import an_item, an_order, order_created
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


async def issued(transactions: Transactions, event: OrderCreated) -> str:
    """The number of the event's invoice."""
    async with transactions() as tx:
        await issue_invoices([event], tx)
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
    assert document.pop("issued_at").endswith("Z")
    assert document == {
        "number": number,
        "order_id": str(order.id),
        "reference": "WEB-1042",
        "customer": {"name": "Ana Souza", "email": "ana@example.com", "locale": "pt-BR"},
        "shipping_address": {
            "line1": "Rua Augusta 1",
            "line2": None,
            "city": "São Paulo",
            "state": None,
            "postal_code": "01304-001",
            "country": "BR",
        },
        "currency": "BRL",
        "items": [
            {
                "sku": "MUG-01",
                "name": "Mug",
                "quantity": 2,
                "unit_price": "19.90",
                "tax_rate": "0.17",
                "subtotal": "39.80",
                "tax": "6.77",
                "total": "46.57",
            },
            {
                "sku": "TEA",
                "name": "Tea",
                "quantity": 1,
                "unit_price": "9.99",
                "tax_rate": "0.055",
                "subtotal": "9.99",
                "tax": "0.55",
                "total": "10.54",
            },
        ],
        "subtotal": "49.79",
        "tax": "7.32",
        "taxes": [
            {"rate": "0.055", "net": "9.99", "tax": "0.55"},
            {"rate": "0.17", "net": "39.80", "tax": "6.77"},
        ],
        "total": "57.11",
    }


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
    settings = ServiceSettings(database_url=await service_url("invoice"))
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
        answer = await client.get(f"/invoices/{created.data.invoice.number}")
    assert answer.json()["order_id"] == str(placed.subject)
    assert datetime.fromisoformat(answer.json()["issued_at"]) == created.data.invoice.issued_at


async def test_the_openapi_document_describes_the_answers(app: FastAPI) -> None:
    description = app.openapi()
    operation = description["paths"]["/invoices/{number}"]["get"]
    assert operation["tags"] == ["invoices"]
    assert set(operation["responses"]) == {"200", "default"}
    total = description["components"]["schemas"]["InvoiceDocument"]["properties"]["total"]
    assert total["type"] == "string"
    assert "pattern" in total
