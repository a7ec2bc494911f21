"""The log has a line for each stage of an order, joined into one line a second under load."""

import asyncio
import json
import logging
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest

from chassis.telemetry import JsonFormatter
from events.progress import JOIN_SECONDS, LINES, ProgressLog, Step
from tests import virtual_clock


@pytest.fixture(autouse=True)
def at_info(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO):
        yield


def steps(stage: str, *seconds: float) -> list[Step]:
    return [Step(uuid4(), stage, each) for each in seconds]


def test_an_order_has_a_line_for_each_stage_with_its_id_and_how_long_it_took(
    caplog: pytest.LogCaptureFixture,
) -> None:
    order_id = UUID("01a22531-f899-711a-ac26-6dd863683979")

    async def scenario() -> None:
        ProgressLog("invoice").note([Step(order_id, "INVOICE_CREATED", 0.1234)])

    virtual_clock.run(scenario())
    [record] = caplog.records
    assert record.getMessage() == (f"invoice: order {order_id}: INVOICE_CREATED, 0.12 s after it was placed")
    line = json.loads(JsonFormatter("invoice").format(record))
    assert (line["order_id"], line["stage"], line["seconds"]) == (str(order_id), "INVOICE_CREATED", 0.123)


def test_under_load_the_orders_of_a_second_are_joined_by_stage_and_none_is_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    early = steps("SHIPPED", *(0.5,) * LINES)
    late = steps("SHIPPED", 1.0, 2.0, 9.0)
    alone = steps("SHIPMENT_ERROR", 3.0)

    async def scenario() -> None:
        log = ProgressLog("shipment")
        log.note(early)
        log.note([*late, *alone])
        assert len(caplog.records) == LINES
        await asyncio.sleep(JOIN_SECONDS * 1.5)
        log.note(steps("SHIPPED", 0.1))

    virtual_clock.run(scenario())
    said = [record.getMessage() for record in caplog.records]
    assert said[LINES:-1] == [
        "shipment: 3 orders: SHIPPED, 2.00 s after they were placed at the median; "
        f"the slowest, {late[2].order_id}, 9.00 s",
        f"shipment: order {alone[0].order_id}: SHIPMENT_ERROR, 3.00 s after it was placed",
    ]
    assert said[-1].endswith("0.10 s after it was placed"), "a new second begins"


def test_nothing_is_collected_when_the_log_level_drops_it(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        with caplog.at_level(logging.WARNING):
            log = ProgressLog("invoice")
            log.note(steps("INVOICE_CREATED", *(0.1,) * 100))
            assert not log._joined

    virtual_clock.run(scenario())
    assert not caplog.records
