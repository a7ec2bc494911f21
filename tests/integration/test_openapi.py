"""Every answer of the order service is in its OpenAPI document, and none is a 500."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.order_service import order_service

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
EXAMPLES = 40
"""For each operation."""


def explore(base_url: str) -> "Counter[str]":
    """Sends to every operation what the document allows. Counts answers by operation and status."""
    document = httpx.get(f"{base_url}/openapi.json", trust_env=False).json()
    session = requests.Session()
    session.trust_env = False  # past any proxy
    explored: Counter[str] = Counter()
    for found in schemathesis.openapi.from_dict(document).get_all_operations():
        assert isinstance(found, Ok), f"the document is not valid: {found}"
        operation = found.ok()

        @seed(1)
        @settings(
            max_examples=EXAMPLES,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def conforms(case: schemathesis.Case[Any]) -> None:
            answer = case.call_and_validate(base_url=base_url, checks=CHECKS, session=session)
            explored[f"{case.method} {case.path} {answer.status_code}"] += 1

        conforms()
    return explored


async def test_every_answer_is_described_in_the_document(
    service_url: Callable[[str], Awaitable[str]],
) -> None:
    async with order_service(await service_url("order")) as service:
        explored = await asyncio.to_thread(explore, f"http://127.0.0.1:{service.port}")
    answered = {"POST /orders 201", "POST /orders 422", "GET /orders/{order_id} 404", "GET /readyz 200"}
    assert answered <= explored.keys()
