"""The commands of docs/operations.md back the system up and restore it."""

import re
from pathlib import Path

import pytest

from tests.e2e.shop import Shop, an_order
from tests.e2e.stack import ROOT, Stack

MIGRATE = "docker compose run --rm migrate\n"


def block(*words: str) -> str:
    """The block of commands on the page that has these words."""
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    [found] = [
        text
        for text in re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
        if all(word in text for word in words)
    ]
    return str(found)


def from_a_dump() -> str:
    return block("pg_restore")


def from_a_copy_of_the_server() -> str:
    first, _, settled = from_a_dump().rpartition(MIGRATE)
    assert "pg_restore" in first
    return block("tar -xzf", "postgres.tar.gz") + MIGRATE + settled


@pytest.mark.parametrize(
    ("back_up", "restore"),
    [
        (block("pg_dump"), from_a_dump()),
        (block("pg_basebackup"), from_a_copy_of_the_server()),
    ],
    ids=["dump", "copy of the server"],
)
def test_the_commands_of_the_page_back_the_system_up_and_restore_it(
    stack: Stack, shop: Shop, tmp_path: Path, back_up: str, restore: str
) -> None:
    order = an_order()
    kept = shop.finished(shop.place(order)["id"])
    shop.mails(order["customer"]["email"], count=4)
    stack.shell(back_up, tmp_path)
    lost = shop.finished(shop.place(an_order())["id"])
    number = lost["invoice"]["number"]

    said = stack.shell(restore.replace("2026-000123", number), tmp_path, seconds=500)

    assert "Every promise is kept." in said
    assert shop.order(kept["id"]) == kept
    assert shop.gateway.get(f"/orders/{lost['id']}").status_code == 404
    year, _, serial = number.partition("-")
    placed = shop.finished(shop.place(an_order())["id"])
    assert placed["invoice"]["number"] == f"{year}-{int(serial) + 1:06d}"
