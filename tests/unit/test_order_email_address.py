"""An e-mail address is accepted or refused exactly as email-validator does it."""

from typing import Any

import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from services.order.email_address import email_address

_PIECES = [
    *("a", "ana", "Z", "9", ".", "..", "-", "--", "+", "_", "!#$%&'*/=?^`{|}~", "@", "@@", " ", "\t", "\n"),
    *('"', '\\"', "\\", "<", ">", "(", ")", ",", ";", ":", "[", "]", "\x00", "\x7f", "\u0338", "\u0301"),
    *(
        "example",
        ".com",
        ".co",
        ".test",
        "localhost",
        "xn--",
        "xn--mnchen-3ya.de",
        "xn--4dbc.com",
        "127.0.0.1",
    ),
    *("ü", "ß", "中" * 10, "אב", "。", "☃", "⒈", "\uff0e", "\uff20", "\ufe6b", "\u1fef", "\u00ad", "\u200d"),
    *("\ud800", "postmaster", "x" * 30, "x" * 63, "x" * 64, "x" * 65),
]
_TEXTS = st.lists(st.sampled_from(_PIECES) | st.characters(), max_size=5).map("".join)
_LOCALS = _TEXTS | st.sampled_from(["ana", "Ana.Souza+orders", "!#$%&'*+/=?^_`{|}~-"])
_DOMAINS = _TEXTS | st.sampled_from(["example.com", "mail.example.com", "münchen.de", "xn--mnchen-3ya.de"])
_ADDRESSES = st.tuples(_LOCALS, st.sampled_from(["@", "@", "@", "", "@@"]), _DOMAINS).map("".join)


def is_valid(text: str) -> bool:
    try:
        validate_email(text, check_deliverability=False, allow_smtputf8=False, strict=True)
    except EmailNotValidError:
        return False
    return True


def is_taken(text: str) -> bool:
    try:
        assert email_address(text) == text
    except PydanticCustomError as refusal:
        assert refusal.type == "invalid_email"
        return False
    return True


@settings(max_examples=2000)
@given(_ADDRESSES)
@example('"ana"@example.com')
@example("<ana@example.com>")
@example("ana=\u0338@example.com")
@example("ana@\u0338example.com")
def test_an_address_is_valid_exactly_if_the_library_says_so(text: str) -> None:
    assert is_taken(text) == is_valid(text)


@pytest.mark.parametrize(
    "domain",
    ["x" * 60 + ".com", ("x" * 60 + ".") * 3 + "x" * 10 + ".com", ("中" * 15 + ".") * 4 + "com", "xn--.com"],
)
def test_the_length_limit_covers_both_parts_of_the_address(domain: str) -> None:
    for length in range(70):
        text = "a" * length + "@" + domain
        assert is_taken(text) == is_valid(text)


def test_a_domain_is_validated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[str] = []

    def judge(text: str, **options: Any) -> None:
        judged.append(text)
        validate_email(text, **options)

    monkeypatch.setattr("services.order.email_address.validate_email", judge)
    assert is_taken("ana@judged-once.com")
    assert is_taken("eve@judged-once.com")
    assert len(judged) == 1
