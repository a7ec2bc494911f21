"""The gateway: its own errors are problem documents, and the services' answers pass through."""

import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.shop import Shop, an_order
from tests.e2e.stack import Stack

LIMIT = 64 * 1024


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The problem document that an answer with this status must be."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    return document


def test_health_and_readiness_are_reported(shop: Shop) -> None:
    assert shop.gateway.get("/healthz").json() == {"status": "ok"}
    assert shop.gateway.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    "path", ["/", "/nothing", "/nothing.html", "/ordersx", "/orders-with-key", "/problem"]
)
def test_an_unknown_path_is_a_404(shop: Shop, path: str) -> None:
    problem(shop.gateway.get(path), 404)


def test_an_unknown_method_is_a_405(shop: Shop) -> None:
    problem(shop.gateway.request("TRACE", "/orders"), 405)
    problem(shop.gateway.delete("/orders"), 405)


def test_a_body_over_the_limit_is_a_413(shop: Shop) -> None:
    problem(shop.gateway.post("/orders", content=b"x" * (LIMIT + 1)), 413)


def test_a_body_over_the_limit_without_a_length_is_a_413(shop: Shop) -> None:
    chunks: Iterator[bytes] = (b"x" * 1024 for _ in range(LIMIT // 1024 + 1))
    problem(shop.gateway.post("/orders", content=chunks), 413)


def test_a_body_at_the_limit_reaches_the_service(shop: Shop) -> None:
    body = json.dumps(an_order()).encode().ljust(LIMIT)
    answer = shop.gateway.post("/orders", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 201, answer.text


def test_a_long_address_is_a_414_and_a_large_header_a_431(shop: Shop) -> None:
    problem(shop.gateway.get("/orders/" + "x" * 9000), 414)
    problem(shop.gateway.get("/orders", headers={"X-Large": "x" * 9000}), 431)


@pytest.mark.parametrize("request_line", [b"NONSENSE", b"GET /orders HTTP/1.1", b"GET /../orders HTTP/1.1"])
def test_a_malformed_request_is_a_400(stack: Stack, request_line: bytes) -> None:
    address = urlsplit(stack.gateway_url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(request_line + b"\r\n\r\n")
        with connection.makefile("rb") as received:
            head, _, body = received.read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"Content-Type: application/problem+json" in head
    assert json.loads(body)["status"] == 400


def test_a_services_own_errors_pass_through(shop: Shop) -> None:
    refused = problem(shop.gateway.post("/orders", json=an_order(currency="XXL")), 422)
    assert refused["errors"][0]["pointer"] == "/currency"

    missing = problem(shop.gateway.get("/orders/01890000-0000-7000-8000-000000000000"), 404)
    assert missing["detail"] != problem(shop.gateway.get("/nothing"), 404)["detail"]


def test_a_request_id_is_kept_or_made(shop: Shop) -> None:
    given = shop.gateway.get("/readyz", headers={"X-Request-Id": "WEB-1042.a_b"})
    assert given.headers.get_list("x-request-id") == ["WEB-1042.a_b"]

    made = shop.gateway.get("/nothing", headers={"X-Request-Id": "no good <name>"})
    assert len(made.headers["x-request-id"]) == 32


def test_too_many_requests_are_a_429_with_retry_after(stack: Stack, shop: Shop) -> None:
    slow = {"GATEWAY_REQUESTS_PER_SECOND": "1", "GATEWAY_BURST": "2"}
    stack.up("--no-deps", "gateway", settings=slow)
    try:
        answers = [shop.gateway.get("/readyz") for _ in range(20)]
    finally:
        stack.up("--no-deps", "gateway")
    refused = [answer for answer in answers if answer.status_code != 200]
    assert refused
    for answer in refused:
        problem(answer, 429)
        assert answer.headers["retry-after"] == "1"


def test_a_stopped_service_is_a_502_or_504_until_it_is_back(stack: Stack, shop: Shop) -> None:
    stack.compose("stop", "invoice")
    try:
        stopped = shop.gateway.get("/invoices/2026-000001")
    finally:
        stack.up("--no-recreate")
    assert problem(stopped, stopped.status_code)["status"] in {502, 504}
    assert stopped.headers["retry-after"]
    assert shop.gateway.get("/invoices/none-such").status_code == 404
