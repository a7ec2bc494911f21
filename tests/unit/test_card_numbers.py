"""Card numbers are found in text, and other numbers are not taken for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError
from stdnum import luhn

from services.order.card_numbers import holds_card_number, without_card_number


@pytest.mark.parametrize(
    "text",
    [
        "4242424242424242",  # Visa
        "4000000000000000006",  # Visa with 19 digits
        "5555555555554444",  # Mastercard
        "2223003122003222",
        "378282246310005",  # American Express
        "3782 822463 10005",
        "6011111111111117",  # Discover
        "6011000990139424",
        "36227206271667",  # Diners Club
        "3622 720627 1667",
        "3056930009020004",
        "3566002020360505",  # JCB
        "6200000000000005",  # UnionPay
        "6205500000000000004",
        "6799990100000000019",  # Maestro
        "50339619890917",
        "4242 4242 4242 4242",
        "4242-4242-4242-4242",
        "4242_4242_4242_4242",
        "4242\u00a04242\u00a04242\u00a04242",
        "4242\u20134242\u20134242\u20134242",
        "4242 4242 4242 4242 12/29 123",
        "4242 4242 4242 4242 12 29",
        "12 4242 4242 4242 4242",
        "my card is 4242424242424242, thanks",
        "card:6011111111111117",
        "pm_5555555555554444",
        "card4242424242424242",
        "cc4242424242424242",
        "DE4242424242424242",
        "4242/4242/4242/4242",
        "4242, 4242, 4242, 4242",
        "4242  4242  4242  4242",
        "+4242424242424242",
        "4242\u200b4242\u200b4242\u200b4242",
        "\uff14\uff12\uff14\uff12" * 4,
    ],
)
def test_a_card_number_is_found(text: str) -> None:
    assert holds_card_number(text)
    with pytest.raises(PydanticCustomError) as caught:
        without_card_number(text)
    assert caught.value.type == "card_data"
    assert not any(character.isdigit() for character in caught.value.message())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Ana Souza",
        "pm_card_chargeDeclinedInsufficientFunds",
        "pm_1MtwBwLkdIwHu7ixBwL2kdIw",
        "4242424242424241",  # a wrong check digit
        "42424242424242424242",  # 20 digits
        "1234567812345670",  # no network
        "4006381333931",  # EAN-13
        "9783161484100",  # ISBN-13
        "+49 170 12345678",
        "+378282246310005",
        "+5511987654321",
        "0044 20 7946 0958 123",
        "(11) 98765-4321",
        "DE89370400440532013000",
        "DE89 3704 0044 0532 0130 00",
        "GB29 NWBK 6016 1331 9268 19",
        "FR14 2004 1010 0505 0001 3M02 606",
        "BE68 5390 0754 7034",
        "FI21 1234 5600 0007 85",
        "2026-11-22 12:30:00",
        "20261122123000",
        "302-1234567-1234567",  # an order number of a marketplace
        "WEB-2026-0001042",
        "1795435200000000",  # microseconds since 1970
        "RR473124829BR",
        "340123450000000018",  # SSCC
        "01939a3e-5f4c-7c1e-8a2b-3c4d5e6f7081",
        "42424242-4242-4242-8a2b-3c4d5e6f7081",
        "https://example.com/orders/20261122/0001",
        "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
    ],
)
def test_another_number_is_not_taken_for_a_card_number(text: str) -> None:
    assert without_card_number(text) == text


@given(st.integers(10**13, 10**19 - 1))
def test_at_most_one_of_ten_numbers_that_differ_in_the_last_digit_is_a_card_number(number: int) -> None:
    digits = str(number)[:-1]
    found = [last for last in "0123456789" if holds_card_number(digits + last)]
    assert found in ([], [luhn.calc_check_digit(digits)])


@given(st.text(st.characters() | st.sampled_from("0123456789 -"), max_size=60))
def test_every_text_is_kept_or_refused(text: str) -> None:
    try:
        assert without_card_number(text) == text
    except PydanticCustomError as refused:
        assert refused.type == "card_data"
