"""The walk through the code in docs/architecture.md leads to functions that exist."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
WALK: Final = (
    (ROOT / "docs" / "architecture.md")
    .read_text("utf-8")
    .partition("## The way of an order")[2]
    .partition("\n## ")[0]
)
"""The section of the page."""
_STEP: Final = re.compile(r"`((?:libs|services)/[\w/]+\.py)`(?:\)|,| \|)((?:,? ?`[\w.]+`)+)")


def steps() -> Iterator[tuple[str, str]]:
    """Each file that the walk names, with each function beside it."""
    for file, names in _STEP.findall(WALK):
        for name in re.findall(r"`([\w.]+)`", names):
            yield file, name


def defined_in(file: str) -> set[str]:
    """The functions of a file, nested ones too; methods as `Class.method`."""
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    names = {node.name for node in ast.walk(tree) if isinstance(node, functions)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{each.name}" for each in node.body if isinstance(each, functions)}
    return names


def test_every_function_of_the_walk_exists() -> None:
    missing = [f"{file}: {name}" for file, name in steps() if name not in defined_in(file)]
    assert missing == []


def test_every_file_of_the_walk_is_there_with_a_function() -> None:
    named = set(re.findall(r"`((?:libs|services)/[\w/]+\.py)`", WALK))
    assert named - {file for file, _ in steps()} == {"libs/chassis/service.py", "libs/events/participant.py"}


def test_the_walk_goes_from_the_endpoint_to_the_invoice_row() -> None:
    walk = list(steps())
    endpoint, row = ("services/order/api.py", "place_order"), ("services/invoice/repository.py", "issue")
    assert walk.index(endpoint) < walk.index(row)
