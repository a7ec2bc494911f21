"""Any text can be stored."""

import pytest

from events.text import storable


@pytest.mark.parametrize(
    ("foreign", "stored"),
    [
        ("plain, ünïcode, 漢字, 🛒", "plain, ünïcode, 漢字, 🛒"),
        ("nul \0", "nul \N{REPLACEMENT CHARACTER}"),
        (b"\xe7a".decode("utf-8", "surrogateescape"), "\N{REPLACEMENT CHARACTER}a"),
        ("\ud800 \udfff", "\N{REPLACEMENT CHARACTER} \N{REPLACEMENT CHARACTER}"),
        ("", ""),
    ],
)
def test_characters_that_the_database_refuses_are_replaced(foreign: str, stored: str) -> None:
    assert storable(foreign) == stored
    stored.encode()


def test_the_limit_counts_characters() -> None:
    assert storable("\0" * 10, 3) == "\N{REPLACEMENT CHARACTER}" * 3
    assert storable("🛒🛒", 1) == "🛒"
