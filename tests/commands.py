"""The commands that the pages show, and whether they can be typed so.

A fence of `sh` holds commands that a test runs; a fence of `console` holds examples. In both, and in a line's
code, a `make` target and an `orderflow` command must exist, with the options that are shown.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import typer

from ops.main import app
from tests.pages import ROOT

_FENCE: Final = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
_INLINE: Final = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
PROGRAMS: Final = ("make", "orderflow", "docker", "curl", "python", ".venv/bin/python", "aws", "sam", "tar")
"""What a command starts with."""


@dataclass(frozen=True)
class Fence:
    """A block of code."""

    language: str
    text: str

    def commands(self) -> list[str]:
        """Its commands, each on one line, without comments, prompts and output."""
        joined = re.sub(r"\\\n\s*", " ", self.text)
        found, begun = [], ""
        for line in joined.splitlines():
            begun = f"{begun}\n{line}" if begun else line.strip().removeprefix("$ ")
            try:
                words = shlex.split(begun, comments=True)
            except ValueError:  # a quotation that goes on in the next line
                continue
            if words and is_program(words[0]):
                found.append(shlex.join(words))
            begun = ""
        return found


def fences(page: Path) -> Iterator[Fence]:
    """The blocks of code on a page."""
    for _, language, text in _FENCE.findall(page.read_text("utf-8")):
        yield Fence(language, text)


def mentioned(page: Path) -> Iterator[str]:
    """Every command on a page: those in blocks, and those in a line's code."""
    for fence in fences(page):
        yield from fence.commands()
    for text in _INLINE.findall(_FENCE.sub("", page.read_text("utf-8"))):
        command = re.sub(r"^(\w+=[^\s\"']+ )+", "", text.replace(r"\|", "|"))
        if is_program(command.split()[0]) and " " in command:
            yield command


def is_program(word: str) -> bool:
    """Whether a command starts with this word."""
    return word in PROGRAMS


def fault(command: str) -> str | None:
    """Why a command can't be typed so; None where it can, or where it is another program's."""
    words = shlex.split(command)
    if words[0] == "make":
        return fault_of_make(words[1:])
    if words[0] == "orderflow":
        return fault_of_orderflow(words[1:])
    if words[:3] == ["docker", "compose", "run"] and "orderflow" in words:
        return fault_of_orderflow(words[words.index("orderflow") + 1 :])
    return None


def fault_of_make(words: list[str]) -> str | None:
    """Why `make` can't be called so."""
    target, *others = words
    if target not in {*targets(), "…"}:
        return f"the Makefile has no target {target}"
    arguments = [word.removeprefix("ARGS=") for word in others if word.startswith("ARGS=")]
    if target == "orderflow" and arguments:
        return fault_of_orderflow(shlex.split(arguments[0]))
    return None


@cache
def targets() -> frozenset[str]:
    """The Makefile's targets."""
    return frozenset(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def fault_of_orderflow(words: list[str]) -> str | None:
    """Why `orderflow` can't be called so."""
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while rest and hasattr(command, "commands") and not rest[0].startswith(("-", "…")):
        word = rest.pop(0)
        if word not in command.commands:
            return f"orderflow has no command {word}"
        command = command.commands[word]
    options = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
    unknown = [word for word in rest if word.startswith("--") and word not in {*options, "--help"}]
    return f"{command.name} has no option {unknown[0]}" if unknown else None
