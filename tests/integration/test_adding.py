"""The example of CONTRIBUTING.md is applied to a copy of the project, and the copy has to work.

The example adds an event type and a service. `git apply` takes its diffs from the pages that show them.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.embedded import EXAMPLES, orderflow, running
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
ADDING_A_SERVICE = ROOT / "docs" / "adding-a-service.md"

EVENT_FILES = {
    "libs/events/contracts.py",  # its class
    "libs/events/journey.py",  # its row in the table of stages
    "services/order/handlers.py",  # a line for each listener …
    "services/email/handlers.py",
    "deploy/aws/template.yaml",  # … and its filter policy
    "services/email/domain.py",  # what people read: the mail's subject and its words
    "services/email/templates/delivered.jinja",
}
SERVICE_FOLDER = "services/delivery/"  # the place where the event happens is its handlers.py
SERVICE_FILES = {"docker-compose.yml", ".env.example", "deploy/aws/template.yaml"}
CHECKS = ("test_aws_template.py", "test_compose.py", "test_journey.py")
SPELLED_OUT = "an_order_has_three_ways or the_page"
"""Tests of CHECKS that repeat the stages word for word: whoever adds one changes them."""


def diff_in(page: Path) -> str:
    """The page's diffs, as one."""
    return "".join(re.findall(r"^```diff\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL))


def files_in(diff: str) -> set[str]:
    return set(re.findall(r"^\+\+\+ b/(.+)$", diff, re.MULTILINE))


def first_on_the_path(copy: Path) -> dict[str, str]:
    return {"PYTHONPATH": f"{copy}/libs:{copy}"}


def run(*command: str, folder: Path, given: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        input=given,
        env=os.environ | first_on_the_path(folder) | {"GIT_CEILING_DIRECTORIES": str(folder.parent)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def grown(tmp_path: Path) -> Path:
    """A copy of the project with the example's event type and service."""
    copy = tmp_path / "copy"
    tracked = run("git", "ls-files", "-z", folder=ROOT)
    assert tracked.returncode == 0, tracked.stderr
    for name in filter(None, tracked.stdout.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    for page in (CONTRIBUTING, ADDING_A_SERVICE):
        applied = run("git", "apply", "--whitespace=error", "-", folder=copy, given=diff_in(page))
        assert applied.returncode == 0, f"the example in {page.name} no longer fits:\n{applied.stderr}"
    return copy


def test_the_example_changes_the_files_that_contributing_names_and_no_others(grown: Path) -> None:
    event, service = files_in(diff_in(CONTRIBUTING)), files_in(diff_in(ADDING_A_SERVICE))
    assert event == EVENT_FILES
    assert {name for name in service if not name.startswith(SERVICE_FOLDER)} == SERVICE_FILES

    copied = {path.relative_to(grown).as_posix() for path in grown.rglob("*") if path.is_file()}
    differing = {
        name
        for name in copied
        if not (ROOT / name).is_file() or (ROOT / name).read_bytes() != (grown / name).read_bytes()
    }
    assert differing == event | service

    section = CONTRIBUTING.read_text("utf-8").partition("## Adding")[2].partition("\n## ")[0]
    for name in EVENT_FILES | SERVICE_FILES:
        assert f"`{name}`" in section


async def test_the_copy_takes_an_order_to_the_new_event_and_keeps_every_promise(grown: Path) -> None:
    environment = first_on_the_path(grown)
    order = json.loads((EXAMPLES / "order.json").read_text("utf-8"))
    async with running(grown / "state", **environment) as (_, api):
        placed = (await api.post("/orders", json=order)).raise_for_status().json()
        delivered = await eventually(lambda: read(api, placed["id"]), lambda it: it["status"] == "DELIVERED")
        mail = grown / "state" / "mails" / f"{placed['id']}-7-DELIVERED.eml"
        await eventually(lambda: exists(mail), bool)
    assert [line["type"] for line in delivered["timeline"]] == [
        "ORDER_CREATED",
        "INVOICE_CREATED",
        "PAYMENT_CONFIRMED",
        "SHIPPED",
        "DELIVERED",
    ]
    assert "Subject: Your order WEB-1042 has arrived" in mail.read_text("utf-8")
    async with orderflow("audit", "--quiet", folder=grown, STATE="state", **environment) as audit:
        assert await audit.ended() == 0, audit.said
    assert "Every promise is kept." in audit.said


async def read(api: httpx.AsyncClient, order_id: str) -> dict[str, Any]:
    order: dict[str, Any] = (await api.get(f"/orders/{order_id}")).raise_for_status().json()
    return order


async def exists(path: Path) -> bool:
    return path.exists()


def test_the_project_s_own_checks_hold_in_the_copy(grown: Path) -> None:
    checks = (f"tests/unit/{name}" for name in CHECKS)
    tests = run(
        *(sys.executable, "-m", "pytest", "-v", *checks, "-k", f"not ({SPELLED_OUT})"),
        folder=grown,
    )
    assert tests.returncode == 0, tests.stdout
    assert "[delivery]" in tests.stdout
    imports = run(
        *(sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"),
        folder=grown,
    )
    assert imports.returncode == 0, imports.stdout
