"""Bad input over HTTP: every case is answered with a problem document and writes nothing.

Nothing gives a 500, a hang or a half-written order, and nothing that was sent is repeated.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest
import pytest_asyncio

from chassis.body import MAX_BYTES
from ops import migrate
from tests.conftest import new_database
from tests.order_service import Json, OrderService, a_new_item, a_new_order, order_service

pytestmark = pytest.mark.asyncio(loop_scope="module")

JSON = {"Content-Type": "application/json"}
CANARY = "canary-4711"
"""Sent in bad places. No answer may repeat it."""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def service(postgres: str) -> AsyncIterator[OrderService]:
    async with new_database(postgres) as owner:
        await migrate.migrate_service(owner, "order", password="order")
        async with order_service(migrate.url_for(owner, "order", password="order")) as service:
            yield service


def problem(answer: httpx.Response, status: int) -> Json:
    """The problem document that an answer with this status must be (RFC 9457)."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: Json = json.loads(answer.content, parse_constant=lambda _: pytest.fail("not JSON"))
    assert document.keys() == {"type", "title", "status", "detail", "instance", "errors"}
    assert document["status"] == status
    assert document["instance"].startswith("urn:uuid:")
    assert all(error.keys() == {"pointer", "code", "detail"} for error in document["errors"])
    assert CANARY not in answer.text
    return document


async def refused(service: OrderService, body: bytes, status: int, headers: Mapping[str, str] = JSON) -> Json:
    """The problem document for a body that is refused; nothing was written."""
    before = await service.written()
    answer = await service.http.post("/orders", content=body, headers=headers)
    document = problem(answer, status)
    assert await service.written() == before
    return document


def encoded(order: Any) -> bytes:
    return json.dumps(order).encode()


def with_item(**changes: Any) -> Json:
    return a_new_order(items=[a_new_item(**changes)])


def with_customer(**changes: Any) -> Json:
    return a_new_order(customer=a_new_order()["customer"] | changes)


def with_address(**changes: Any) -> Json:
    return a_new_order(shipping_address=a_new_order()["shipping_address"] | changes)


def with_discount(**changes: Any) -> Json:
    return a_new_order(discount={"amount": "1.00"} | changes)


def with_shipping(**changes: Any) -> Json:
    return a_new_order(shipping={"price": "4.90"} | changes)


def billed_to(**changes: Any) -> Json:
    return a_new_order(billing_address=a_new_order()["shipping_address"] | changes)


def without(*path: str) -> Json:
    order = a_new_order()
    parent = order
    for step in path[:-1]:
        parent = parent[step]
    del parent[path[-1]]
    return order


# 415


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": ""},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/jsonp"},
        {"Content-Type": "application/merge-patch+json"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": "application/json, application/json"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
    ids=str,
)
async def test_another_content_type_is_a_415(service: OrderService, headers: dict[str, str]) -> None:
    await refused(service, encoded(a_new_order()), 415, headers)


@pytest.mark.parametrize("content_type", ["Application/JSON", "application/json; charset=UTF-8"])
async def test_json_may_be_announced_in_any_spelling(service: OrderService, content_type: str) -> None:
    headers = {"Content-Type": content_type}
    answer = await service.http.post("/orders", content=encoded(a_new_order()), headers=headers)
    assert answer.status_code == 201, answer.text


# 400: not one JSON document

GOOD = encoded(a_new_order())


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b" \n", id="blank"),
        pytest.param(GOOD[:-1], id="cut"),
        pytest.param(GOOD[:100], id="cut in the middle"),
        pytest.param(GOOD + GOOD, id="two documents"),
        pytest.param(GOOD + b"\x00", id="something behind it"),
        pytest.param(GOOD.replace(b"Ana Souza", b"Ana \xff"), id="invalid UTF-8"),
        pytest.param(GOOD.replace(b"Ana Souza", b"Ana \xed\xa0\x80"), id="surrogate in UTF-8"),
        pytest.param(GOOD.replace(b"Ana Souza", b"Ana \xc0\xaf"), id="overlong UTF-8"),
        pytest.param(json.dumps(a_new_order()).encode("utf-16"), id="UTF-16"),
        pytest.param(b"\xef\xbb\xbf" + GOOD, id="byte order mark"),
        pytest.param(GOOD[:-1] + b', "currency": "EUR"}', id="duplicate key"),
        pytest.param(GOOD[:-1] + b', "curr\\u0065ncy": "EUR"}', id="duplicate key in another spelling"),
        pytest.param(GOOD.replace(b'"sku"', b'"name": "Cup", "sku"'), id="duplicate key in an item"),
        pytest.param(GOOD.replace(b'"BRL"', b'{"a": 1, "a": 1}'), id="duplicate key where no object belongs"),
        pytest.param(b"[" * 60_000, id="60,000 brackets"),
        pytest.param(b"[" * 30_000 + b"]" * 30_000, id="30,000 nested arrays"),
        pytest.param(b'{"a":' * 12_000 + b"1" + b"}" * 5_000, id="12,000 nested objects"),
        pytest.param(GOOD.replace(b'": 2', b'": NaN'), id="NaN"),
        pytest.param(GOOD.replace(b'": 2', b'": Infinity'), id="Infinity"),
        pytest.param(GOOD.replace(b'": 2', b'": -Infinity'), id="-Infinity"),
        pytest.param(GOOD.replace(b'": 2', b'": ' + b"9" * 5_000), id="5,000 digits"),
        pytest.param(GOOD.replace(b'": 2', b'": -' + b"9" * 60_000), id="60,000 digits"),
        pytest.param(GOOD.replace(b'": 2', b'": 02'), id="leading zero"),
        pytest.param(GOOD.replace(b"Ana Souza", b"Ana\nSouza"), id="raw line feed"),
        pytest.param(GOOD.replace(b"Ana Souza", b"Ana \\x41"), id="unknown escape"),
        pytest.param(GOOD.replace(b'"', b"'"), id="single quotes"),
        pytest.param(b"/* */" + GOOD, id="comment"),
        pytest.param(b"reference=WEB-1042", id="form"),
    ],
)
async def test_a_body_that_is_not_one_json_document_is_a_400(service: OrderService, body: bytes) -> None:
    assert (await refused(service, body, 400))["errors"] == []


async def test_100_000_nested_brackets_are_too_large_before_they_are_too_deep(service: OrderService) -> None:
    await refused(service, b"[" * 100_000, 413)


# 422: JSON, but not an order


@pytest.mark.parametrize("number", [b"1e400", b"-1e400", b"9" * 4_000, b"-" + b"9" * 4_000, b"2.0", b"2e0"])
async def test_a_number_other_than_a_small_integer_is_a_422(service: OrderService, number: bytes) -> None:
    document = await refused(service, GOOD.replace(b'": 2', b'": ' + number), 422)
    assert [error["pointer"] for error in document["errors"]] == ["/items/0/quantity"]


@pytest.mark.parametrize(
    "body", [b"null", b"true", b"1", b"1e400", b'"order"', b"[]", b"{}", b"[" + GOOD + b"]"]
)
async def test_a_document_that_is_no_order_is_a_422(service: OrderService, body: bytes) -> None:
    assert (await refused(service, body, 422))["errors"]


STRINGS: dict[str, Any] = {
    "/reference": lambda text: a_new_order(reference=text),
    "/customer/name": lambda text: with_customer(name=text),
    "/customer/email": lambda text: with_customer(email=f"{text}@example.com"),
    "/customer/locale": lambda text: with_customer(locale=text),
    "/shipping_address/line1": lambda text: with_address(line1=text),
    "/shipping_address/line2": lambda text: with_address(line2=text),
    "/shipping_address/city": lambda text: with_address(city=text),
    "/shipping_address/state": lambda text: with_address(state=text),
    "/shipping_address/postal_code": lambda text: with_address(postal_code=text),
    "/shipping_address/country": lambda text: with_address(country=text),
    "/currency": lambda text: a_new_order(currency=text),
    "/items/0/sku": lambda text: with_item(sku=text),
    "/items/0/name": lambda text: with_item(name=text),
    "/items/0/unit_price": lambda text: with_item(unit_price=text),
    "/items/0/tax_rate": lambda text: with_item(tax_rate=text),
    "/payment_method": lambda text: a_new_order(payment_method=text),
    "/customer/company": lambda text: with_customer(company=text),
    "/customer/phone": lambda text: with_customer(phone=text),
    "/customer/tax_id": lambda text: with_customer(tax_id=text),
    "/shipping_address/name": lambda text: with_address(name=text),
    "/shipping_address/company": lambda text: with_address(company=text),
    "/billing_address/line1": lambda text: billed_to(line1=text),
    "/billing_address/state": lambda text: billed_to(state=text),
    "/billing_address/postal_code": lambda text: billed_to(postal_code=text),
    "/billing_address/country": lambda text: billed_to(country=text),
    "/billing_address/name": lambda text: billed_to(name=text),
    "/prices": lambda text: a_new_order(prices=text),
    "/tax_rounding": lambda text: a_new_order(tax_rounding=text),
    "/items/0/id": lambda text: with_item(id=text),
    "/items/0/tax_category": lambda text: with_item(tax_category=text),
    "/items/0/exemption_reason": lambda text: with_item(
        tax_rate="0", tax_category="E", exemption_reason=text
    ),
    "/items/0/discount/amount": lambda text: with_item(discount={"amount": text}),
    "/items/0/discount/rate": lambda text: with_item(discount={"rate": text}),
    "/items/0/discount/name": lambda text: with_item(discount={"rate": "0.1", "name": text}),
    "/discount/amount": lambda text: a_new_order(discount={"amount": text}),
    "/discount/rate": lambda text: a_new_order(discount={"rate": text}),
    "/discount/name": lambda text: with_discount(name=text),
    "/shipping/name": lambda text: with_shipping(name=text),
    "/shipping/price": lambda text: with_shipping(price=text),
    "/shipping/tax_rate": lambda text: with_shipping(tax_rate=text),
    "/shipping/tax_category": lambda text: with_shipping(tax_category=text),
    "/shipping/exemption_reason": lambda text: with_shipping(tax_category="O", exemption_reason=text),
    "/note": lambda text: a_new_order(note=text),
    "/metadata/channel": lambda text: a_new_order(metadata={"channel": text}),
}
FREE_TEXT = [
    "/reference",
    "/customer/name",
    "/customer/company",
    "/customer/tax_id",
    *(
        f"/shipping_address/{name}"
        for name in ("line1", "line2", "city", "state", "postal_code", "name", "company")
    ),
    *(f"/billing_address/{name}" for name in ("line1", "state", "postal_code", "name")),
    "/items/0/name",
    "/items/0/exemption_reason",
    "/items/0/discount/name",
    "/discount/name",
    "/shipping/name",
    "/shipping/exemption_reason",
    "/note",
    "/metadata/channel",
]


@pytest.mark.parametrize("pointer", STRINGS)
async def test_nul_lone_surrogates_and_line_ends_are_a_422_in_every_string(
    service: OrderService, pointer: str
) -> None:
    for text in (
        "a\x00b",
        "\ud800",
        "a\udfffb",
        "\udc00\ud800",
        "a\nb",
        "a\r\nBcc: b",
        "a\x1bb",
        "a\x85b",
        "a\u2028",
    ):
        document = await refused(service, encoded(STRINGS[pointer](text)), 422)
        assert [error["pointer"] for error in document["errors"]] == [pointer], ascii(text)


@pytest.mark.parametrize("pointer", STRINGS)
async def test_every_string_is_a_string_and_not_empty_and_bounded(
    service: OrderService, pointer: str
) -> None:
    values: list[object] = ["", 1, 1.5, True, [], {}, [CANARY], "x" * 501]
    for value in values:
        order = STRINGS[pointer](value) if pointer != "/customer/email" else with_customer(email=value)
        document = await refused(service, encoded(order), 422)
        assert [error["pointer"] for error in document["errors"]] == [pointer], value


BLANK = (
    " ",
    "   ",
    "\u00a0",
    "\u3000",
    "\u200b",
    "\ufeff",
    "\u00ad",
    "\u2060\u200d",
    "\u115f",
    "\u3164",
    "\ufe0f",
    "\u2800",
    "\U000e0020",
    "\U0001d173",
)


@pytest.mark.parametrize("pointer", STRINGS)
async def test_invisible_text_is_a_422_in_every_string(service: OrderService, pointer: str) -> None:
    for text in BLANK:
        document = await refused(service, encoded(STRINGS[pointer](text)), 422)
        assert [error["pointer"] for error in document["errors"]] == [pointer], ascii(text)


@pytest.mark.parametrize(
    "pointer",
    [
        "/customer/name",
        "/customer/tax_id",
        "/items/0/sku",
        "/metadata/channel",
        "/note",
        "/shipping_address/postal_code",
    ],
)
async def test_text_that_is_too_long_is_counted_in_characters(service: OrderService, pointer: str) -> None:
    [error] = (await refused(service, encoded(STRINGS[pointer]("x" * 501)), 422))["errors"]
    assert (error["pointer"], error["code"]) == (pointer, "too_long")
    assert error["detail"].endswith(" characters.")


async def test_blank_text_has_an_error_of_its_own(service: OrderService) -> None:
    document = await refused(service, encoded(with_customer(name="\u00a0 \u200b")), 422)
    [error] = document["errors"]
    assert (error["code"], error["detail"]) == ("blank", "This must contain a visible character.")


@pytest.mark.parametrize("pointer", STRINGS)
async def test_bidirectional_control_characters_are_a_422_in_every_string(
    service: OrderService, pointer: str
) -> None:
    for control in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069":
        document = await refused(service, encoded(STRINGS[pointer](f"a{control}b")), 422)
        assert [error["pointer"] for error in document["errors"]] == [pointer], ascii(control)


@pytest.mark.parametrize("country", ["HK", "AE", "IE"])
async def test_an_address_without_a_postal_code_is_taken_where_there_are_none(
    service: OrderService, country: str
) -> None:
    address = without("shipping_address", "postal_code")["shipping_address"] | {"country": country}
    for given in (address, address | {"postal_code": None}):
        placed = await service.place(shipping_address=given)
        assert placed["shipping_address"]["postal_code"] is None
        assert (await service.read(placed["id"]))["shipping_address"] == placed["shipping_address"]
    some_code = "D02 AF30" if country == "IE" else "999077"
    kept = await service.place(shipping_address=address | {"postal_code": some_code})
    assert kept["shipping_address"]["postal_code"] == some_code


async def test_kosovo_is_a_country(service: OrderService) -> None:
    address = a_new_order()["shipping_address"] | {"country": "XK", "postal_code": "10000"}
    assert (await service.place(shipping_address=address))["shipping_address"]["country"] == "XK"


async def test_one_sku_at_two_prices_is_two_lines(service: OrderService) -> None:
    items = [a_new_item(unit_price=price, tax_rate="0") for price in ("10.00", "0.00", "12.00")]
    placed = await service.place(items=items)
    assert [item["unit_price"] for item in placed["items"]] == ["10.00", "0.00", "12.00"]
    assert placed["total"] == "44.00"
    assert (await service.read(placed["id"]))["items"] == placed["items"]


OPTIONAL = {
    "/reference",
    "/customer/locale",
    "/customer/company",
    "/customer/phone",
    "/customer/tax_id",
    *(f"/shipping_address/{name}" for name in ("line2", "state", "name", "company")),
    *(f"/billing_address/{name}" for name in ("state", "name")),
    "/items/0/id",
    "/items/0/tax_category",
    "/items/0/discount/name",
    "/discount/name",
    "/shipping/tax_category",
    "/shipping/exemption_reason",
    "/note",
}
NEITHER = {"/items/0/discount/amount", "/items/0/discount/rate", "/discount/amount", "/discount/rate"}
"""A discount with null in place of its only value has neither an amount nor a rate."""


@pytest.mark.parametrize("pointer", STRINGS)
async def test_null_is_accepted_for_optional_fields_only(service: OrderService, pointer: str) -> None:
    order = STRINGS[pointer](None) if pointer != "/customer/email" else with_customer(email=None)
    if pointer in OPTIONAL:
        assert (await service.http.post("/orders", json=order)).status_code == 201
    else:
        document = await refused(service, encoded(order), 422)
        wrong = pointer.rpartition("/")[0] if pointer in NEITHER else pointer
        assert [error["pointer"] for error in document["errors"]] == [wrong]


@pytest.mark.parametrize(
    "path",
    [
        ("customer",),
        ("customer", "name"),
        ("customer", "email"),
        ("shipping_address",),
        ("shipping_address", "line1"),
        ("shipping_address", "city"),
        ("shipping_address", "postal_code"),
        ("shipping_address", "country"),
        ("currency",),
        ("items",),
        ("payment_method",),
    ],
    ids="/".join,
)
async def test_a_missing_field_is_a_422_that_names_it(service: OrderService, path: tuple[str, ...]) -> None:
    [error] = (await refused(service, encoded(without(*path)), 422))["errors"]
    assert (error["pointer"], error["code"]) == ("/" + "/".join(path), "required")


@pytest.mark.parametrize(
    "quantity",
    [
        *(0, -1, 0.5, 1.0, 1_000_000_000, 100_001, 2**63, 2**64, True, False, None, [], {}),
        *("", "0", "0.000", "-1", "+1", "01", "1.", ".5", "1,5", "1e3", "0.1234", "100000.001", "1000000"),
        *(" 1", "1\n", "\u0661", "NaN", CANARY),
    ],
)
async def test_a_quantity_that_is_no_number_over_0_to_100_000_is_a_422(
    service: OrderService, quantity: object
) -> None:
    document = await refused(service, encoded(with_item(quantity=quantity)), 422)
    assert [error["pointer"] for error in document["errors"]] == ["/items/0/quantity"]


@pytest.mark.parametrize(
    ("items", "pointer"),
    [
        pytest.param([], "/items", id="no items"),
        pytest.param([a_new_item(sku=f"SKU-{n}") for n in range(101)], "/items", id="over 100 items"),
        pytest.param({}, "/items", id="an object"),
        pytest.param(None, "/items", id="null"),
        pytest.param([None], "/items/0", id="a null item"),
        pytest.param([a_new_item(), "MUG-02"], "/items/1", id="an item that is a string"),
    ],
)
async def test_items_that_cannot_be_ordered_are_a_422(
    service: OrderService, items: object, pointer: str
) -> None:
    document = await refused(service, encoded(a_new_order(items=items)), 422)
    assert [error["pointer"] for error in document["errors"]] == [pointer]


@pytest.mark.parametrize("name", ["status", "total", "paid", "id", "created_at", "Currency", "__proto__"])
@pytest.mark.parametrize("value", [CANARY, None, {"a": CANARY}])
async def test_an_unknown_field_is_a_422_that_names_it(
    service: OrderService, name: str, value: object
) -> None:
    [error] = (await refused(service, encoded(a_new_order(**{name: value})), 422))["errors"]
    assert (error["pointer"], error["code"]) == (f"/{name}", "unknown_field")


async def test_an_unknown_field_is_found_at_every_level(service: OrderService) -> None:
    for order, pointer in (
        (with_customer(vip=True), "/customer/vip"),
        (with_address(planet="Mars"), "/shipping_address/planet"),
        (with_item(total="39.80"), "/items/0/total"),
        (billed_to(planet="Mars"), "/billing_address/planet"),
        (with_discount(percent="10"), "/discount/percent"),
        (with_item(discount={"rate": "0.1", "percent": "10"}), "/items/0/discount/percent"),
        (with_shipping(carrier="DHL"), "/shipping/carrier"),
    ):
        [error] = (await refused(service, encoded(order), 422))["errors"]
        assert error["pointer"] == pointer


@pytest.mark.parametrize(
    "name", ["", CANARY, "a b", "a/b", "~0", "a\x00b", "é", "4242424242424242", "x" * 41]
)
async def test_an_unknown_field_with_a_strange_name_is_a_422_that_does_not_repeat_it(
    service: OrderService, name: str
) -> None:
    [error] = (await refused(service, encoded(with_item(**{name: 1})), 422))["errors"]
    assert (error["pointer"], error["code"]) == ("/items/0", "unknown_field")


async def test_a_lone_surrogate_in_a_name_is_a_422(service: OrderService) -> None:
    [error] = (await refused(service, encoded(with_item(**{"\ud800": 1})), 422))["errors"]
    assert error["code"] == "not_unicode"


async def test_thousands_of_faults_give_a_bounded_answer(service: OrderService) -> None:
    order = a_new_order(**{f"f{number}": 1 for number in range(4_000)})
    assert len((await refused(service, encoded(order), 422))["errors"]) == 100


@pytest.mark.parametrize(
    ("order", "pointer", "code"),
    [
        (a_new_order(currency="XXX"), "/currency", "unknown_currency"),
        (a_new_order(currency="XAU"), "/currency", "unknown_currency"),
        (a_new_order(currency="brl"), "/currency", "wrong_format"),
        (a_new_order(currency="BRL\n"), "/currency", "wrong_format"),
        (with_address(country="XX"), "/shipping_address/country", "unknown_country"),
        (with_address(country="UK"), "/shipping_address/country", "unknown_country"),
        (with_address(country="br"), "/shipping_address/country", "wrong_format"),
        (with_address(country="BRA"), "/shipping_address/country", "wrong_format"),
        (with_item(unit_price="19.9"), "/items/0/unit_price", "wrong_decimals"),
        (with_item(unit_price="19"), "/items/0/unit_price", "wrong_decimals"),
        (with_item(unit_price="19.90000"), "/items/0/unit_price", "wrong_format"),
        (with_shipping(price="4.9"), "/shipping/price", "wrong_format"),
        (with_shipping(price="4.900"), "/shipping/price", "wrong_decimals"),
        (with_discount(amount="5"), "/discount/amount", "wrong_decimals"),
        (a_new_order(currency="KWD"), "/items/0/unit_price", "wrong_decimals"),
        (with_item(unit_price="-19.90"), "/items/0/unit_price", "wrong_format"),
        (with_item(unit_price="+19.90"), "/items/0/unit_price", "wrong_format"),
        (with_item(unit_price="019.90"), "/items/0/unit_price", "wrong_format"),
        (with_item(unit_price="19,90"), "/items/0/unit_price", "wrong_format"),
        (with_item(unit_price="1e3"), "/items/0/unit_price", "wrong_format"),
        (with_item(unit_price="NaN"), "/items/0/unit_price", "wrong_format"),
        (with_item(unit_price="19.90\n"), "/items/0/unit_price", "wrong_format"),
        (with_item(unit_price="\u0661.\u0660\u0660"), "/items/0/unit_price", "wrong_format"),
        (with_item(unit_price=19.9), "/items/0/unit_price", "wrong_type"),
        (with_item(unit_price=19), "/items/0/unit_price", "wrong_type"),
        (with_item(tax_rate="1.01"), "/items/0/tax_rate", "wrong_format"),
        (with_item(tax_rate="1.000001"), "/items/0/tax_rate", "wrong_format"),
        (with_item(tax_rate="17"), "/items/0/tax_rate", "wrong_format"),
        (with_item(tax_rate="-0.1"), "/items/0/tax_rate", "wrong_format"),
        (with_item(tax_rate="0.1234567"), "/items/0/tax_rate", "wrong_format"),
        (with_item(tax_rate=".17"), "/items/0/tax_rate", "wrong_format"),
        (with_item(tax_rate=0.17), "/items/0/tax_rate", "wrong_type"),
        (with_item(tax_rate=0), "/items/0/tax_rate", "wrong_type"),
        (with_item(unit_price="0.10"), "/items", "total_too_small"),
        (with_item(unit_price="500000000.00"), "/items", "total_too_large"),
        (a_new_order(currency="IRR"), "/currency", "currency_unsupported"),
        (with_item(unit_price="999999999999.99"), "/items", "total_too_large"),
        (with_item(unit_price="1000000000000.00"), "/items/0/unit_price", "wrong_format"),
        (with_customer(locale="pt_BR"), "/customer/locale", "wrong_format"),
        (with_customer(locale="../../etc"), "/customer/locale", "wrong_format"),
        (a_new_order(payment_method="4242424242424242"), "/payment_method", "card_data"),
        (a_new_order(payment_method="4242-4242-4242-4242"), "/payment_method", "card_data"),
        (a_new_order(payment_method="4242 4242 4242 4242"), "/payment_method", "wrong_format"),
        (a_new_order(payment_method="pm card"), "/payment_method", "wrong_format"),
        (a_new_order(payment_method="../pm_card_visa"), "/payment_method", "wrong_format"),
        (a_new_order(payment_method=None), "/payment_method", "required"),
        (with_address(postal_code="1304"), "/shipping_address/postal_code", "wrong_postal_code"),
        (with_address(postal_code=None), "/shipping_address/postal_code", "required"),
        (with_address(state="XX"), "/shipping_address/state", "unknown_state"),
        (billed_to(postal_code="1304"), "/billing_address/postal_code", "wrong_postal_code"),
        (billed_to(postal_code=None), "/billing_address/postal_code", "required"),
        (billed_to(state="XX"), "/billing_address/state", "unknown_state"),
        (billed_to(country="XX"), "/billing_address/country", "unknown_country"),
        (with_customer(tax_id="529.982.247-26"), "/customer/tax_id", "invalid_tax_id"),
        (with_customer(phone="call me"), "/customer/phone", "wrong_format"),
        (with_customer(phone="+"), "/customer/phone", "wrong_format"),
        (with_item(id="shipping"), "/items/0/id", "reserved_line_id"),
        (with_item(id="-a"), "/items/0/id", "wrong_format"),
        (a_new_order(items=[a_new_item(id="2"), a_new_item()]), "/items/1/id", "duplicate_line_id"),
        (with_item(tax_category="X"), "/items/0/tax_category", "unknown_value"),
        (with_item(tax_category="Z"), "/items/0/tax_category", "wrong_tax_category"),
        (with_item(tax_category="AE", tax_rate="0"), "/items/0/tax_category", "wrong_tax_category"),
        (with_item(tax_category="E", tax_rate="0"), "/items/0/exemption_reason", "required"),
        (with_item(exemption_reason="Why"), "/items/0/exemption_reason", "needless_exemption_reason"),
        (with_item(discount={}), "/items/0/discount", "amount_or_rate"),
        (with_item(discount={"amount": "1.00", "rate": "0.1"}), "/items/0/discount", "amount_or_rate"),
        (with_item(discount={"amount": "39.81"}), "/items/0/discount/amount", "discount_too_large"),
        (with_discount(amount="39.81"), "/discount/amount", "discount_too_large"),
        (with_discount(rate="0.1"), "/discount", "amount_or_rate"),
        (a_new_order(discount="5.00"), "/discount", "wrong_type"),
        (a_new_order(discount={"rate": "1.1"}), "/discount/rate", "wrong_format"),
        (a_new_order(shipping={}), "/shipping/price", "required"),
        (with_shipping(tax_category="E"), "/shipping/exemption_reason", "required"),
        (with_shipping(price="999999999999.99"), "/items", "total_too_large"),
        (a_new_order(prices="gros"), "/prices", "unknown_value"),
        (a_new_order(tax_rounding="order"), "/tax_rounding", "unknown_value"),
        (a_new_order(reverse_charge=1), "/reverse_charge", "wrong_type"),
        (a_new_order(reverse_charge="true"), "/reverse_charge", "wrong_type"),
        (a_new_order(note="x" * 501), "/note", "too_long"),
        (a_new_order(metadata=[]), "/metadata", "wrong_type"),
        (a_new_order(metadata={"a": 1}), "/metadata/a", "wrong_type"),
        (a_new_order(metadata={"a": {"b": "c"}}), "/metadata/a", "wrong_type"),
        (a_new_order(metadata={"a": "x" * 201}), "/metadata/a", "too_long"),
        (a_new_order(metadata={f"key-{n}": "x" for n in range(21)}), "/metadata", "too_long"),
        (a_new_order(metadata={"": "x"}), "/metadata", "wrong_format"),
        (a_new_order(metadata={CANARY + " ": "x"}), "/metadata", "wrong_format"),
        (a_new_order(metadata={"x" * 41: "x"}), "/metadata", "wrong_format"),
        (a_new_order(metadata={"a/b": "x"}), "/metadata", "wrong_format"),
        (a_new_order(metadata={"\ud800": "x"}), "/metadata", "wrong_format"),
        (a_new_order(metadata={"4242424242424242": 1}), "/metadata", "card_data"),
    ],
)
async def test_a_value_that_breaks_a_rule_is_a_422_that_names_field_and_rule(
    service: OrderService, order: Json, pointer: str, code: str
) -> None:
    [error] = (await refused(service, encoded(order), 422))["errors"]
    assert (error["pointer"], error["code"]) == (pointer, code)


async def test_a_reverse_charge_needs_a_tax_id_and_no_tax(service: OrderService) -> None:
    order = a_new_order(reverse_charge=True, shipping={"price": "4.90", "tax_rate": "0.17"})
    errors = (await refused(service, encoded(order), 422))["errors"]
    assert {(error["pointer"], error["code"]) for error in errors} == {
        ("/customer/tax_id", "required"),
        ("/items/0/tax_rate", "rate_not_zero"),
        ("/shipping/tax_rate", "rate_not_zero"),
    }


async def test_the_faults_of_addresses_tax_id_and_prices_are_named_at_once(service: OrderService) -> None:
    order = billed_to(state="XX") | {"items": [a_new_item(unit_price="1")]}
    order["customer"]["tax_id"] = CANARY
    errors = (await refused(service, encoded(order), 422))["errors"]
    assert {error["pointer"] for error in errors} == {
        "/billing_address/state",
        "/customer/tax_id",
        "/items/0/unit_price",
    }


CARDS = ("4242424242424242", "4242 4242 4242 4242", "3782-822463-10005", "my card: 5555 5555 5555 4444 12/29")


@pytest.mark.parametrize("pointer", FREE_TEXT)
async def test_a_card_number_is_a_422_in_every_text(service: OrderService, pointer: str) -> None:
    for text in CARDS:
        answer = await service.http.post("/orders", json=STRINGS[pointer](text))
        [error] = problem(answer, 422)["errors"]
        assert (error["pointer"], error["code"]) == (pointer, "card_data"), text
        assert "4242" not in answer.text


@pytest.mark.parametrize(
    ("pointer", "text"),
    [
        ("/customer/email", "4242424242424242"),
        ("/customer/locale", "en-4242-4242-4242-4242"),
        ("/customer/phone", "4242 4242 4242 4242"),
        ("/items/0/id", "4242-4242-4242-4242"),
        ("/payment_method", "4242.4242.4242.4242"),
    ],
)
async def test_a_card_number_is_a_422_in_names_and_addresses(
    service: OrderService, pointer: str, text: str
) -> None:
    [error] = (await refused(service, encoded(STRINGS[pointer](text)), 422))["errors"]
    assert (error["pointer"], error["code"]) == (pointer, "card_data")


async def test_an_article_number_may_look_like_a_card_number(service: OrderService) -> None:
    placed = await service.place(items=[a_new_item(sku="4242424242424242")])
    assert placed["items"][0]["sku"] == "4242424242424242"


@pytest.mark.parametrize(
    "phone",
    [
        "+55 11 98765-4321",
        "0049 (711) 123 45-67",
        "(11) 98765-4321",
        "01632 960.001",
        "+1-202-555-0123 ext. 42",
    ],
)
async def test_a_phone_number_is_kept_as_written(service: OrderService, phone: str) -> None:
    placed = await service.place(customer=a_new_order()["customer"] | {"phone": phone})
    assert placed["customer"]["phone"] == phone


@pytest.mark.parametrize(
    "email",
    [
        CANARY,
        "",
        "@",
        "ana@",
        "@example.com",
        "ana@example",
        "ana@localhost",
        "ana@[127.0.0.1]",
        "ana@example..com",
        "ana@-example.com",
        "ana..souza@example.com",
        'ana@example.com"',
        '"ana souza"@example.com',
        "Ana Souza <ana@example.com>",
        "<ana@example.com>",
        "ana@example.com (Ana)",
        "ana@example.com, eve@example.com",
        "ana@example.com;eve@example.com",
        "ana@example.com eve@example.com",
        "ana@eve@example.com",
        "ana@example.com\r\nBcc: eve@example.com",
        "ana@example.com\nBcc: eve@example.com",
        "ana@example.com\n",
        "ana\r@example.com",
        " ana@example.com",
        "a" * 65 + "@example.com",
        "ana@" + "e" * 64 + ".com",
        "ana@" + ".".join(["e" * 60] * 4) + ".example.com",
    ],
)
async def test_text_other_than_one_plain_address_is_a_422(service: OrderService, email: str) -> None:
    document = await refused(service, encoded(with_customer(email=email)), 422)
    assert [error["pointer"] for error in document["errors"]] == ["/customer/email"]


@pytest.mark.parametrize(
    "email", ["ana@example.com", "Ana.Souza+orders@mail.example.org", "o'brien@example.com", "a@b.co"]
)
async def test_a_plain_address_is_kept_as_given(service: OrderService, email: str) -> None:
    placed = await service.place(customer=a_new_order()["customer"] | {"email": email})
    assert placed["customer"]["email"] == email


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert('x')</script>",
        "<img src=x onerror=alert(1)>",
        "&amp; &lt; &#0;",
        "{{ 7 * 7 }} {% raw %} ${7*7} #{7*7} <%= 7 %>",
        "%s %n %(name)s {0} {order.__class__}",
        "Robert'); DROP TABLE orders;--",
        "' OR '1'='1",
        "=cmd|' /C calc'!A0",
        "+1+1",
        "@SUM(1+1)",
        "-1",
        "👩‍👩‍👧‍👦 Zoë 🏴󠁧󠁢󠁳󠁣󠁴󠁿",
        "\u200fabc\u200e \u061c\u200b",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "\u0915\u094d\u200d\u0937",
        "שלום עולם",
        "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘!͖̬̰̙̗̿̋ͥͥ̂ͣ̐́́͜͞",
        "../../etc/passwd",
        "\\u0000 \\x00 %00 %0d%0a",
        "e\u0301 é",
        " leading and trailing ",
        "null",
        "\U0010ffff\ufffe",
        "x" * 200,
        "🏠" * 200,
    ],
)
async def test_text_is_stored_and_returned_unchanged(service: OrderService, text: str) -> None:
    placed = await service.place(
        reference=text,
        customer={"name": text, "email": "ana@example.com", "company": text},
        shipping_address={
            "line1": text,
            "line2": text,
            "city": text,
            "state": text,
            "postal_code": text[:64],
            "country": "AQ",  # it has no states and no postal codes of its own
            "name": text,
            "company": text,
        },
        items=[a_new_item(sku=text[:64], name=text, discount={"rate": "0.1", "name": text})],
        discount={"amount": "1.00", "name": text},
        shipping={"name": text, "price": "4.90", "tax_category": "O", "exemption_reason": text},
        note=text,
        metadata={"a": text},
    )
    read = await service.read(placed["id"])
    assert read["reference"] == read["customer"]["name"] == read["items"][0]["name"] == text
    address = read["shipping_address"]
    assert address["line1"] == address["line2"] == address["city"] == address["state"] == text
    assert address["name"] == address["company"] == read["customer"]["company"] == text
    assert read["note"] == read["metadata"]["a"] == read["discount"]["name"] == text
    assert read["items"][0]["discount"]["name"] == read["shipping"]["name"] == text
    assert read["shipping"]["exemption_reason"] == text
    assert address["postal_code"] == read["items"][0]["sku"] == text[:64]


async def test_a_payment_method_that_no_provider_knows_is_accepted(service: OrderService) -> None:
    assert (await service.place(payment_method="pm_nobody_knows"))["status"] == "ORDER_CREATED"


# 413 and hangs


async def answer_to(service: OrderService, *parts: bytes, half_close: bool = False) -> httpx.Response:
    """The service's answer to these bytes. Nothing is sent after them."""
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
            if half_close:
                writer.write_eof()
            head = await reader.readuntil(b"\r\n\r\n")
            status, *lines = head.decode().strip().split("\r\n")
            headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
            body = await reader.readexactly(int(dict(headers)["content-length"]))
            return httpx.Response(int(status.split()[1]), headers=headers, content=body)
        finally:
            writer.close()


POST = b"POST /orders HTTP/1.1\r\nHost: order\r\nContent-Type: application/json\r\n"


async def test_a_body_over_the_limit_is_a_413(service: OrderService) -> None:
    await refused(service, GOOD.ljust(MAX_BYTES + 1), 413)


async def test_a_body_announced_as_over_the_limit_is_a_413_before_it_arrives(service: OrderService) -> None:
    problem(await answer_to(service, POST, b"Content-Length: 65537\r\n\r\n"), 413)
    problem(await answer_to(service, POST, b"Content-Length: 9999999999\r\n\r\n"), 413)


async def test_a_body_over_the_limit_without_a_length_is_a_413_before_it_ends(service: OrderService) -> None:
    chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
    answer = await answer_to(service, POST, b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 17)
    problem(answer, 413)


async def test_a_body_at_the_limit_is_read_with_and_without_a_length(service: OrderService) -> None:
    body = GOOD.ljust(MAX_BYTES)
    answer = await service.http.post("/orders", content=body, headers=JSON)
    assert answer.status_code == 201, answer.text

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    answer = await service.http.post("/orders", content=chunks(), headers=JSON)
    assert answer.status_code == 201, answer.text


async def test_a_body_that_never_ends_is_a_408(
    service: OrderService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chassis.body.READ_SECONDS", 0.1)
    problem(await answer_to(service, POST, b"Content-Length: 100\r\n\r\n", b'{"reference":'), 408)


async def test_a_caller_that_disconnects_in_the_middle_leaves_no_order(service: OrderService) -> None:
    before = await service.written()
    for sent in (b"", b'{"reference":', GOOD):
        _, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(POST + f"Content-Length: {len(GOOD) + 1}\r\n\r\n".encode() + sent)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    assert (await service.http.get("/healthz")).status_code == 200
    assert await service.written() == before


# Idempotency-Key


@pytest.mark.parametrize(
    "header",
    [
        b"Idempotency-Key:\r\n",
        b"Idempotency-Key: \r\n",
        b"Idempotency-Key: " + b"k" * 256 + b"\r\n",
        b"Idempotency-Key: a\tb\r\n",
        b"Idempotency-Key: a\x80b\r\n",
        b"Idempotency-Key: \xc3\xa9\r\n",
        b"Idempotency-Key: a\r\nIdempotency-Key: b\r\n",
        b"Idempotency-Key: a\r\nIdempotency-Key: a\r\n",
    ],
)
async def test_a_key_that_is_not_one_printable_header_is_a_400(service: OrderService, header: bytes) -> None:
    before = await service.written()
    length = f"Content-Length: {len(GOOD)}\r\n\r\n".encode()
    problem(await answer_to(service, POST, header, length, GOOD), 400)
    assert await service.written() == before


@pytest.mark.parametrize("control", [b"\x00", b"\x01", b"\x7f", b"\x1b"])
async def test_a_key_with_a_control_character_never_makes_an_order(
    service: OrderService, control: bytes
) -> None:
    before = await service.written()
    length = f"Content-Length: {len(GOOD)}\r\n\r\n".encode()
    header = b"Idempotency-Key: a" + control + b"b\r\n"
    answer = await answer_to(service, POST, header, length, GOOD, half_close=True)
    assert answer.status_code == 400
    assert await service.written() == before


# Unknown orders, paths, methods


@pytest.mark.parametrize(
    "order_id",
    [
        "01939a3e-5f4c-7c1e-8a2b-3c4d5e6f7081",
        "00000000-0000-0000-0000-000000000000",
        "1",
        "null",
        "01939a3e5f4c7c1e8a2b3c4d5e6f7081",
        "{01939a3e-5f4c-7c1e-8a2b-3c4d5e6f7081}",
        "urn:uuid:01939a3e-5f4c-7c1e-8a2b-3c4d5e6f7081",
        "01939a3e-5f4c-7c1e-8a2b-3c4d5e6f708g",
        "%00",
        "%ff%fe",
        "%ED%A0%80",
        "' OR 1=1",
        "x" * 5_000,
        CANARY,
    ],
)
async def test_an_unknown_or_malformed_order_id_is_a_404(service: OrderService, order_id: str) -> None:
    document = problem(await service.http.get(f"/orders/{order_id}"), 404)
    assert document["detail"] == "There is no order with this id."


@pytest.mark.parametrize(
    "path", ["/", "/order", "/orders/", f"/orders/{CANARY}/events", "/orders/a/b", "//orders"]
)
async def test_an_unknown_path_is_a_404(service: OrderService, path: str) -> None:
    problem(await service.http.get(service.http.base_url.copy_with(raw_path=path.encode())), 404)


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
async def test_a_wrong_method_is_a_405_that_names_the_right_one(service: OrderService, method: str) -> None:
    answer = await service.http.request(method, "/orders")
    problem(answer, 405)
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_an_order_itself_can_only_be_read(service: OrderService, method: str) -> None:
    answer = await service.http.request(method, "/orders/01939a3e-5f4c-7c1e-8a2b-3c4d5e6f7081")
    problem(answer, 405)
    assert answer.headers["allow"] == "GET"


async def test_a_head_request_is_a_405_without_a_body(service: OrderService) -> None:
    answer = await service.http.head("/orders")
    assert (answer.status_code, answer.content) == (405, b"")
