"""Every sentence that the code can say: its string constants, with `…` for what is filled in."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

from tests.pages import ROOT

SOURCES: Final = ("libs", "ops", "services", "sandbox", "deploy")
_FILLED_IN: Final = re.compile(r"%(?:\.\d+)?[sdrf]|%(?=[ :])|\{\w*\}")


@cache
def said() -> tuple[str, ...]:
    """The sentences, without line ends; scripts and templates as a whole."""
    files = [path for folder in SOURCES for path in sorted((ROOT / folder).rglob("*"))]
    return tuple(" ".join(text.split()) for path in files for text in texts(path))


def texts(path: Path) -> Iterator[str]:
    """The sentences in one file."""
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield _FILLED_IN.sub("…", node.value)
    elif path.suffix in (".sh", ".template"):
        yield path.read_text("utf-8")


def is_said(message: str) -> bool:
    """Whether a sentence of the code has the parts of this message, in their order.

    A setting's name before the sentence, as in `BROKER_URL: …`, is not part of the code's sentence.
    """
    words = re.sub(r"^[A-Z0-9_]+: ", "", message)
    pattern = re.compile(".*".join(re.escape(part.strip()) for part in words.split("…")))
    return any(pattern.search(text) for text in said())
