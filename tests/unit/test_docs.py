"""The pages agree with the code: tables, commands, messages and links."""

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from ops.main import app
from tests import aws_template, settings_reference
from tests.commands import PROGRAMS, fault, fences, mentioned
from tests.messages import is_said
from tests.pages import EVERY_PAGE, ROOT, USER_PAGES, Table, cells_of, generated, renewed, unwritten

READMES_ORDER = "test_the_readmes_order_is_shipped_and_its_customer_gets_a_mail_at_every_stage"
RUN_AND_STOPPED = "test_it_ships_an_order_refuses_a_second_run_on_its_folder_and_ends_well_on_ctrl_c"
RESTORED = "test_the_commands_of_the_page_back_the_system_up_and_restore_it"
RUN_BY = {
    "make demo": "test_it_succeeds_twice_at_once_beside_a_running_system",
    "make run": RUN_AND_STOPPED,
    "docker compose up --wait": READMES_ORDER,
    "curl -i -X POST localhost:8000/orders": READMES_ORDER,
    "docker compose up --wait --scale billing=3 --scale order=2": (
        "test_scaled_services_share_the_work_and_invoice_numbers_have_no_gap"
    ),
    "docker compose exec -T postgres pg_dump": RESTORED,
    "docker compose exec -T postgres pg_basebackup": RESTORED,
    "docker compose stop gateway order invoice billing shipment email reconcile": RESTORED,
    "docker compose stop gateway order invoice billing shipment email reconcile postgres": RESTORED,
    "docker compose run --rm migrate": RESTORED,
    "docker compose exec -T postgres dropdb": RESTORED,
    "docker compose exec -T postgres createdb": RESTORED,
    "docker compose exec -T postgres pg_restore": RESTORED,
    "docker compose run --rm orderflow restore": RESTORED,
    "docker compose up -d --wait": RESTORED,
    "docker compose run --rm orderflow audit": RESTORED,
    "docker compose run --rm --no-deps -T": RESTORED,
    "docker compose up -d --wait postgres": RESTORED,
}
"""The commands in fences of `sh`, up to what differs from call to call, and the test that runs each."""
VARIES = re.compile(r" (-H|-U|--last-invoice|--entrypoint) .*", re.DOTALL)


def relative(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize(("name", "tables"), list(generated().items()))
def test_generated_tables_are_those_of_the_code(name: str, tables: Mapping[str, Callable[[], Table]]) -> None:
    page = (ROOT / "docs" / name).read_text("utf-8")
    assert set(re.findall(r"<!-- generated: ([a-z-]+) -->", page)) == tables.keys()
    advice = f"docs/{name} is behind the code: run .venv/bin/python -m tests.pages, then fill in empty cells."
    assert renewed(page, tables) == page, advice
    assert unwritten(page, tables) == [], advice


def test_a_setting_that_is_added_to_the_code_alone_is_found() -> None:
    def grown() -> Table:
        table = settings_reference.of_roles()
        return Table(table.header, [*table.rows, ("`RETURNS_DB_PASSWORD`", "`returns`")], table.written)

    tables = {**settings_reference.TABLES, "roles": grown}
    page = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    renewed_page = renewed(page, tables)
    assert renewed_page != page
    assert unwritten(renewed_page, tables) == ["`RETURNS_DB_PASSWORD`"]


def test_env_example_shows_the_defaults_of_the_compose_file() -> None:
    shown = settings_reference.of_env_example()
    del shown["BUILD_NETWORK"]  # its line shows another value than the default
    ours = settings_reference.of_the_compose_file()
    assert {name: ours[name] for name in shown.keys() & ours.keys()} == {
        name: shown[name] for name in shown.keys() & ours.keys()
    }
    for name in shown.keys() & settings_reference.schemas().keys() - ours.keys():
        assert shown[name] == (settings_reference.default_of(name) or ""), name


def test_every_promise_is_shown_by_a_command_and_the_audit_checks_those_that_it_shows() -> None:
    page = (ROOT / "docs" / "guarantees.md").read_text("utf-8")
    shown = {cells[0]: cells[-1] for cells in cells_of(page) if re.fullmatch(r"I\d+", cells[0])}
    checked = {
        node.value
        for path in (ROOT / "ops" / "audit").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and re.fullmatch(r"I\d+", str(node.value))
    }
    assert list(shown) == [f"I{number}" for number in range(1, len(shown) + 1)]
    assert all("`make " in by or "`orderflow " in by for by in shown.values())
    assert {promise for promise, by in shown.items() if "`orderflow audit`" in by} <= checked
    assert checked <= shown.keys()


def test_the_aws_page_names_every_parameter_of_the_template_with_its_default() -> None:
    parameters = aws_template.read("template.yaml")["Parameters"]
    shown: dict[str, str] = {}
    for cells in cells_of((ROOT / "docs" / "aws.md").read_text("utf-8")):
        names = re.findall(r"`([A-Z]\w+)`", cells[0])
        if len(cells) == 3 and set(names) & parameters.keys():
            defaults = [each.strip("` ") for each in cells[1].split(",")]
            shown |= zip(names, defaults, strict=True)
    assert shown == {name: str(each.get("Default", "")) for name, each in parameters.items()}


def test_readme_places_the_order_of_the_examples() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    [body] = re.findall(r" -d '(\{.*?\})'\n", readme, re.DOTALL)
    assert json.loads(body) == json.loads((ROOT / "examples" / "order.json").read_text("utf-8"))


def test_every_command_in_a_fence_of_sh_is_run_by_a_test() -> None:
    defined = {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert set(RUN_BY.values()) <= defined, (
        "RUN_BY names a test that does not exist: it may have been renamed."
    )
    shown = {
        VARIES.sub("", command): relative(page)
        for page in USER_PAGES
        for fence in fences(page)
        if fence.language == "sh"
        for command in fence.commands()
    }
    for command, page in shown.items():
        assert command in RUN_BY, (
            f"{page} shows `{command}`, which no test runs: write one and name it in RUN_BY, or make the "
            "fence one of `console`, for examples."
        )
    assert RUN_BY.keys() == shown.keys(), "RUN_BY has commands that no page shows."


@pytest.mark.parametrize("page", USER_PAGES, ids=relative)
def test_no_command_hides_in_another_fence(page: Path) -> None:
    for fence in fences(page):
        if fence.language not in ("sh", "console"):
            found = [line for line in fence.text.splitlines() if line.split(" ")[0] in PROGRAMS]
            assert not found, f"Make the fence with {found[0]!r} one of `sh` or `console`."


@pytest.mark.parametrize("page", USER_PAGES, ids=relative)
def test_every_command_can_be_typed_as_it_is_shown(page: Path) -> None:
    assert {command: fault(command) for command in mentioned(page) if fault(command)} == {}


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("make feast", "the Makefile has no target feast"),
        ("orderflow bury", "orderflow has no command bury"),
        ("orderflow dead list --loudly", "list has no option --loudly"),
        ("docker compose run --rm orderflow audit --slowly", "audit has no option --slowly"),
        ("make orderflow ARGS='dead bury'", "orderflow has no command bury"),
    ],
)
def test_a_command_that_does_not_exist_is_found(command: str, why: str) -> None:
    assert fault(command) == why


def paths(command: Any, *before: str) -> Iterator[tuple[str, ...]]:
    yield before
    for name, below in getattr(command, "commands", {}).items():
        yield from paths(below, *before, name)


@pytest.mark.parametrize("words", list(paths(typer.main.get_command(app))), ids=" ".join)
def test_every_command_explains_itself(words: tuple[str, ...]) -> None:
    assert CliRunner().invoke(app, [*words, "--help"]).exit_code == 0


def test_every_message_on_the_troubleshooting_page_exists() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    quoted = [found[1] for cells in cells_of(page) if (found := re.match(r"`([^`]+)`", cells[0]))]
    assert len(quoted) > 50
    gone = [message for message in quoted if not is_said(message)]
    assert gone == [], "The code says this in other words now: quote it as it is."
    assert not is_said("the batch is repeated until the cows come home")


@pytest.mark.parametrize("page", EVERY_PAGE, ids=relative)
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target:
            name, _, anchor = target.partition("#")
            file = page.parent / name if name else page
            assert file.exists(), target
            assert not anchor or anchor in anchors(file), target


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
