"""Tracking numbers are UPU S10 identifiers."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.shipment import s10


@pytest.mark.parametrize(
    ("number", "digit"),
    [
        (47312482, 9),  # RR473124829GB, the common worked example: 200 mod 11 is 2
        (12345678, 5),  # RB123456785GB, Royal Mail's own example
        (28704377, 5),  # RR287043775IN, off a label of India Post: 231 mod 11 is 0, 11 becomes 5
        (8, 0),  # 56 mod 11 is 1, 10 becomes 0
    ],
)
def test_the_check_digit_is_that_of_known_identifiers(number: int, digit: int) -> None:
    assert s10.check_digit(number) == digit


@given(st.integers(0, 99_999_999), st.integers(0, 7), st.integers(0, 9))
def test_one_mistyped_digit_is_found_unless_both_have_a_check_digit_of_5(
    number: int, position: int, typed: int
) -> None:
    """The weights are prime to 11, so the sums differ; only remainders 0 and 6 share a check digit."""
    digits = f"{number:08d}"
    mistyped = int(digits[:position] + str(typed) + digits[position + 1 :])
    if mistyped != number and s10.check_digit(number) != 5:
        assert s10.check_digit(mistyped) != s10.check_digit(number)


@pytest.mark.parametrize(
    ("serial", "identifier"),
    [
        (0, "RR000000005BR"),
        (47_312_482, "RR473124829BR"),
        (99_999_999, "RR999999995BR"),
        (100_000_000, "RS000000005BR"),
        (s10.CAPACITY - 1, "RQ999999995BR"),
    ],
)
def test_a_post_counts_through_the_digits_and_then_through_its_services(serial: int, identifier: str) -> None:
    assert s10.identifier(serial, "BR") == identifier


@given(st.sets(st.integers(0, s10.CAPACITY - 1), min_size=2))
def test_every_item_has_an_identifier_of_its_own(serials: set[int]) -> None:
    identifiers = {s10.identifier(serial, "PT") for serial in serials}
    assert len(identifiers) == len(serials)
    assert all(re.fullmatch(r"R[A-Y][0-9]{9}PT", identifier) for identifier in identifiers)
