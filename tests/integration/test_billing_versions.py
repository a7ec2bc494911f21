"""Billing goes on with the payments and refunds that a process of version 1 of the events has left."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest
from uuid_utils.compat import uuid7

from events import envelope
from events.bus import Message
from events.contracts import PaymentConfirmed, PaymentRefunded
from sandbox.stripe.faults import Behaviour, Step
from services.billing import simulated
from services.billing.domain import derive_id
from services.billing.provider import ChargeRequest
from services.billing.stripe import provider as stripe_provider
from tests import version_1
from tests.billing_harness import Harness, open_harness
from tests.factories import an_order
from tests.stripe_server import StripeServer, stripe_server

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the SDK's own doing

ORDER = an_order(id=version_1.ORDER_ID)
PAYMENT_ID = derive_id(ORDER.id, "payment")


@pytest.fixture
async def harness(
    fresh_database: str, service_url: Callable[[str], Awaitable[str]]
) -> AsyncIterator[Harness]:
    async with open_harness(fresh_database, service_url) as harness:
        yield harness


async def add_payment(harness: Harness, state: str = "pending", reference: str | None = None) -> None:
    """Adds the payment as version 1 does; its process has died."""
    await harness.rows(
        """
        INSERT INTO billing.payments (id, order_id, amount, currency, payment_method, snapshot, state,
            claimed_until, provider, provider_reference)
        VALUES ($1, $2, $3, 'BRL', $4, $5, $6, now(), CASE WHEN $6 = 'captured' THEN 'simulated' END, $7)""",
        *(PAYMENT_ID, ORDER.id, version_1.TOTAL, version_1.PAYMENT_METHOD, version_1.INVOICED),
        *(state, reference),
    )


async def test_a_payment_that_version_1_began_is_charged_and_the_payment_method_stays_here(
    harness: Harness,
) -> None:
    await add_payment(harness)
    async with simulated.connect(harness.ledger_url) as provider, harness.billing(provider):
        event = await harness.listener.wait_for(PaymentConfirmed, ORDER)
    assert event.dataschema == "urn:orderflow:PAYMENT_CONFIRMED:2"
    assert (event.data.payment.id, event.data.payment.amount) == (str(PAYMENT_ID), version_1.TOTAL)
    assert version_1.PAYMENT_METHOD.encode() not in envelope.encode_one(event)
    [charge] = await harness.rows("SELECT key, payment_method FROM provider.charges")
    assert tuple(charge) == (f"{PAYMENT_ID}-1", version_1.PAYMENT_METHOD)


async def create_intent_as_version_1(server: StripeServer) -> None:
    """Sends what version 1 sends for a new intent."""
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        await http.post(
            "/v1/payment_intents",
            data={
                "amount": str(version_1.TOTAL),
                "currency": "brl",
                "payment_method": version_1.PAYMENT_METHOD,
                "allowed_payment_method_types[0]": "card",
                "metadata[payment_id]": str(PAYMENT_ID),
                "metadata[order_id]": str(ORDER.id),
                "metadata[reference]": "WEB-1042",
                "metadata[key_hash]": "a" * 64,
            },
            headers={"Idempotency-Key": f"{PAYMENT_ID}-1"},
        )


@pytest.mark.parametrize("fault", [None, Behaviour.SAVED_ERROR_BEFORE])
async def test_an_intent_that_version_1_asked_for_is_asked_for_again_with_the_same_parameters(
    harness: Harness, fault: Behaviour | None
) -> None:
    """Stripe would refuse the key with other parameters, and a saved error would stay unseen for a day."""
    async with (
        stripe_server() as server,
        stripe_provider.connect("sk_test_1", server.url) as provider,
    ):
        server.timing.search_seconds = 3600.0  # search does not help
        if fault:
            server.fail(ORDER.id, Step.CREATE, fault)
        await create_intent_as_version_1(server)
        await add_payment(harness)
        async with harness.billing(provider):
            await harness.listener.wait_for(PaymentConfirmed, ORDER)
        [row] = await harness.rows("SELECT attempts, generation FROM billing.payments")
        assert tuple(row) == (0, 2 if fault else 1)
        [intent] = server.of_order(ORDER.id)
        assert (intent.status, intent.shipping, intent.description) == ("succeeded", None, None)


async def test_a_payment_is_asked_for_in_the_same_words_each_time(harness: Harness) -> None:
    async with (
        stripe_server() as server,
        stripe_provider.connect("sk_test_1", server.url, answer_seconds=0.5) as provider,
        harness.billing(provider),
    ):
        server.fail(ORDER.id, Step.CREATE, Behaviour.TIMEOUT_AFTER, Behaviour.TIMEOUT_BEFORE)
        await harness.deliver(
            Message(
                uuid7(),
                "INVOICE_CREATED",
                version_1.event("INVOICE_CREATED", "/services/invoice", version_1.INVOICED),
                (),
                (),
            )
        )
        await harness.listener.wait_for(PaymentConfirmed, ORDER)
        [intent] = server.of_order(ORDER.id)
    assert intent.description == "Order WEB-1042"
    assert intent.shipping
    assert (intent.shipping.name, intent.shipping.phone) == ("Ana Souza", None)
    address = intent.shipping.address
    assert (address.line1, address.city, address.country) == ("Rua Augusta 1", "São Paulo", "BR")
    [row] = await harness.rows("SELECT snapshot, form FROM billing.payments")
    assert row["form"] == 2
    snapshot = json.loads(row["snapshot"])
    assert snapshot["payment_method"] == version_1.PAYMENT_METHOD
    assert "payment_method" not in snapshot["order"]


async def test_a_refund_that_version_1_began_is_made(harness: Harness) -> None:
    async with simulated.connect(harness.ledger_url) as provider:
        await provider.charge(
            ChargeRequest(f"{PAYMENT_ID}-1", PAYMENT_ID, ORDER.id, 4657, "BRL", version_1.PAYMENT_METHOD)
        )
        await harness.rows("UPDATE provider.charges SET id = 'ch_1'")  # as the snapshot names it
        await add_payment(harness, "captured", "ch_1")
        await harness.rows(
            """
            INSERT INTO billing.refunds (id, order_id, cause, payment_id, amount, currency, snapshot, state,
                claimed_until)
            VALUES ($1, $2, 'SHIPMENT_ERROR', $3, 4657, 'BRL', $4, 'pending', now())""",
            *(derive_id(ORDER.id, "SHIPMENT_ERROR"), ORDER.id, PAYMENT_ID, version_1.UNDELIVERABLE),
        )
        async with harness.billing(provider):
            event = await harness.listener.wait_for(PaymentRefunded, ORDER)
    assert event.data.refund.amount == version_1.TOTAL
    assert version_1.PAYMENT_METHOD.encode() not in envelope.encode_one(event)


async def test_a_refund_asked_for_by_version_1_does_not_keep_the_payment_method(harness: Harness) -> None:
    await add_payment(harness, "captured", "ch_1")
    await harness.rows("UPDATE billing.payments SET id = $1", version_1.PAYMENT_ID)
    async with simulated.connect(harness.ledger_url) as provider, harness.billing(provider):
        body = version_1.event("SHIPMENT_ERROR", "/services/shipment", version_1.UNDELIVERABLE)
        await harness.deliver(Message(uuid7(), "SHIPMENT_ERROR", body, (), ()))
    [row] = await harness.rows("SELECT snapshot FROM billing.refunds")
    assert b"destination_not_served" in row["snapshot"]
    assert version_1.PAYMENT_METHOD.encode() not in row["snapshot"]
