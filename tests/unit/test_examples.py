"""The example orders, and where they are expected to end."""

import json

from events.journey import WAYS
from events.money import EXPONENTS, format_amount, parse_amount, tax_on
from sandbox.demo.examples import FOLDER, Example, load

EXAMPLES = load(FOLDER)


def total_of(example: Example) -> str:
    total = 0
    for item in example.order["items"]:
        net = parse_amount(item["unit_price"], example.currency) * item["quantity"]
        total += net + tax_on(net, item.get("tax_rate", "0"))
    return format_amount(total, example.currency)


def test_every_file_has_its_place_in_the_demo() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == {example.name for example in EXAMPLES}


def test_they_are_many_and_of_every_kind() -> None:
    assert len(EXAMPLES) >= 20
    assert {EXPONENTS[example.currency] for example in EXAMPLES} == {0, 2, 3}
    assert {example.ends for example in EXAMPLES} == set(WAYS)
    assert {example.reason for example in EXAMPLES} > {"card_declined", "insufficient_funds"}
    assert any(example.sent_twice for example in EXAMPLES)


def test_each_has_a_reference_of_its_own() -> None:
    assert len({example.reference for example in EXAMPLES}) == len(EXAMPLES)


def test_their_totals_are_right_to_the_minor_unit() -> None:
    assert {example.name: example.total for example in EXAMPLES} == {
        example.name: total_of(example) for example in EXAMPLES
    }


def test_an_example_that_ends_badly_says_why() -> None:
    assert all((example.reason is None) == (example.ends == "SHIPPED") for example in EXAMPLES)


def test_their_mail_addresses_belong_to_nobody() -> None:
    assert all(example.order["customer"]["email"].endswith("@example.com") for example in EXAMPLES)


def test_the_first_is_the_order_that_the_documentation_places() -> None:
    assert json.loads((FOLDER / "order.json").read_text("utf-8")) == EXAMPLES[0].order
    assert (EXAMPLES[0].reference, EXAMPLES[0].total) == ("WEB-1042", "46.57")
