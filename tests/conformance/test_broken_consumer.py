"""The suite notices a consumer that is not started again after the broker ended it. Needs a real broker."""

from unittest.mock import patch

import pytest

from events import rabbitmq
from events.rabbitmq.inspection import QueueState
from events.rabbitmq.subscription import QueueSubscription
from ops.audit import broker
from tests.conformance.system import System
from tests.factories import order_created
from tests.waiting import eventually


@pytest.mark.parametrize("transport", ["rabbitmq-4", "rabbitmq-local"], indirect=True)
@pytest.mark.parametrize("started_again", [True, False], ids=["as it is", "not started again"])
async def test_a_consumer_that_is_not_started_again_is_seen(system: System, started_again: bool) -> None:
    described = system.transport.described()

    async def state() -> QueueState | None:
        found = await rabbitmq.queues(described["url"], ["invoice"], prefix=described["prefix"])
        return found["invoice"]

    async def invoice_breaches() -> set[str]:
        return {breach.invariant for breach in broker.breaches({"invoice": await state()})}

    async def end_and_await_the_queue() -> None:
        await system.start("order", "invoice", "email")
        await eventually(invoice_breaches, lambda found: not found)
        await system.transport.end_consumer(system, "invoice")
        await eventually(state, lambda found: found is not None)
        await system.emit(order_created())

    if started_again:
        await end_and_await_the_queue()
        await eventually(invoice_breaches, lambda found: not found)
    else:
        with patch.object(QueueSubscription, "_cancelled", lambda *_: None):
            await end_and_await_the_queue()
            await eventually(state, lambda found: found is not None and found.waiting > 0)
            assert await invoice_breaches() == {"I22"}
    await system.stop("order", "invoice", "email")
