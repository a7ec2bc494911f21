"""The example orders, and where they are expected to end.

The totals are worked out here a second time, with exact fractions and without the order service's own code.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import Any

import pytest

from events.journey import WAYS
from events.money import EXPONENTS, format_amount
from sandbox.demo.examples import FOLDER, Example, load

EXAMPLES = load(FOLDER)
HALF = Fraction(1, 2)


@dataclass
class Amounts:
    """What a line or the shipping costs, in minor units."""

    net: int
    tax: int

    @property
    def total(self) -> int:
        return self.net + self.tax


def half_up(exact: Fraction) -> int:
    return floor(exact + HALF)


def spread(whole: int, shares: Sequence[Fraction]) -> list[int]:
    """Divides `whole` by largest remainder; the earlier part wins a tie."""
    if not any(shares):
        return [0] * len(shares)
    exact = [whole * share / sum(shares) for share in shares]
    parts = [floor(part) for part in exact]
    by_remainder = sorted(range(len(exact)), key=lambda n: parts[n] - exact[n])  # a stable sort
    for n in by_remainder[: whole - sum(parts)]:
        parts[n] += 1
    return parts


def discount_on(amount: int, given: dict[str, str] | None, unit: int) -> int:
    if given is None:
        return 0
    if "amount" in given:
        return int(Fraction(given["amount"]) * unit)
    return half_up(amount * Fraction(given["rate"]))


def worked_out(order: dict[str, Any]) -> list[Amounts]:
    """The amounts of each line, and of the shipping, if there is one, last."""
    unit = 10 ** EXPONENTS[order["currency"]]
    amounts = []
    for item in order["items"]:
        price = half_up(Fraction(item["unit_price"]) * Fraction(item["quantity"]) * unit)
        amounts.append(price - discount_on(price, item.get("discount"), unit))
    discount = discount_on(sum(amounts), order.get("discount"), unit)
    shares = spread(discount, [Fraction(amount) for amount in amounts])
    amounts = [amount - share for amount, share in zip(amounts, shares, strict=True)]
    taxed = list(order["items"])
    if shipping := order.get("shipping"):
        amounts.append(int(Fraction(shipping["price"]) * unit))
        taxed.append(shipping)

    is_gross = order.get("prices") == "gross"
    exact = [_exact_tax(amount, each, is_gross) for amount, each in zip(amounts, taxed, strict=True)]
    taxes = [half_up(tax) for tax in exact]
    if order.get("tax_rounding") == "rate":
        groups = defaultdict(list)
        for n, each in enumerate(taxed):
            groups[_category(each), Fraction(each.get("tax_rate", "0"))].append(n)
        for group in groups.values():
            whole = half_up(sum((exact[n] for n in group), Fraction()))
            for n, tax in zip(group, spread(whole, [exact[n] for n in group]), strict=True):
                taxes[n] = tax
    return [
        Amounts(amount - tax if is_gross else amount, tax) for amount, tax in zip(amounts, taxes, strict=True)
    ]


def _exact_tax(amount: int, taxed: dict[str, str], is_gross: bool) -> Fraction:
    rate = Fraction(taxed.get("tax_rate", "0"))
    return amount * rate / (1 + rate) if is_gross else amount * rate


def _category(taxed: dict[str, str]) -> str:
    return taxed.get("tax_category") or ("S" if Fraction(taxed.get("tax_rate", "0")) else "Z")


def test_every_file_has_its_place_in_the_demo() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == {example.name for example in EXAMPLES}


def test_they_are_many_and_of_every_kind() -> None:
    assert len(EXAMPLES) >= 30
    assert {EXPONENTS[example.currency] for example in EXAMPLES} == {0, 2, 3}
    assert {example.ends for example in EXAMPLES} == set(WAYS)
    assert {example.reason for example in EXAMPLES} > {"card_declined", "insufficient_funds"}
    assert any(example.sent_twice for example in EXAMPLES)


def test_each_has_a_reference_of_its_own() -> None:
    assert len({example.reference for example in EXAMPLES}) == len(EXAMPLES)


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.name for example in EXAMPLES])
def test_its_total_is_right_to_the_minor_unit(example: Example) -> None:
    amounts = worked_out(example.order)
    assert format_amount(sum(each.total for each in amounts), example.currency) == example.total
    if example.tax is not None:
        assert format_amount(sum(each.tax for each in amounts), example.currency) == example.tax


@pytest.mark.parametrize(
    ("name", "amounts"),
    [
        ("germany-teapot", [(3781, 718), (1867, 131), (412, 78)]),
        ("japan-gifts", [(1129, 90), (2167, 174), (5238, 524), (700, 70)]),
        ("greece-saffron", [(20812, 2706), (1870, 449)]),
        ("bahrain-pearls", [(79289, 7929), (13375, 1337), (1500, 150)]),
        ("netherlands-studio", [(45125, 0), (3780, 0), (2450, 0)]),
        ("portugal-gift", [(3634, 836), (203, 47)]),
        ("uk-course", [(18000, 0), (3200, 0), (3832, 767)]),
        ("ireland-sample", [(0, 0), (0, 0)]),
    ],
)
def test_the_net_amount_and_tax_of_its_lines_are_those_worked_out_by_hand(
    name: str, amounts: list[tuple[int, int]]
) -> None:
    """`expected.toml` shows the arithmetic."""
    [example] = [each for each in EXAMPLES if each.name == name]
    assert [(each.net, each.tax) for each in worked_out(example.order)] == amounts


def test_an_example_that_ends_badly_says_why() -> None:
    assert all((example.reason is None) == (example.ends == "SHIPPED") for example in EXAMPLES)


def test_only_an_order_without_a_payment_method_costs_nothing() -> None:
    free = {example.name for example in EXAMPLES if "payment_method" not in example.order}
    assert free == {"ireland-sample"}
    assert {example.name for example in EXAMPLES if Fraction(example.total) == 0} == free


def test_their_mail_addresses_belong_to_nobody() -> None:
    assert all(example.order["customer"]["email"].endswith("@example.com") for example in EXAMPLES)


def test_the_first_is_the_order_that_the_documentation_places() -> None:
    assert json.loads((FOLDER / "order.json").read_text("utf-8")) == EXAMPLES[0].order
    assert (EXAMPLES[0].reference, EXAMPLES[0].total) == ("WEB-1042", "46.57")
