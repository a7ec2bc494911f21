"""A duplicate name in a JSON object is always found, wherever it is and however it is escaped."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.body import parse
from chassis.problems import Problem

_NAMES = st.sampled_from(
    ["a", "b", ":", '"', "\\", "\u00e9", "e\u0301", "\U0001f3e0", "\ud800", ""]
) | st.text(max_size=2)
_LEAVES = st.sampled_from(["null", "true", "1", "-0", "1.0", "1e2", '""', '"a:b"', '"{\\"a\\":1,\\"a\\":2}"'])
_DOCUMENTS: st.SearchStrategy[Any] = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.lists(st.tuples(_NAMES, inner), max_size=4),
    max_leaves=12,
)


def text_of(draw: st.DrawFn, document: Any) -> str:
    """The document as JSON; each character of a name as itself, or as an escape."""
    if isinstance(document, str):
        return document
    space = draw(st.sampled_from(["", " ", "\n"]))
    if isinstance(document, tuple):
        return "[" + ",".join(space + text_of(draw, each) for each in document) + "]"
    names = ["".join(spelled(draw, character) for character in name) for name, _ in document]
    values = [text_of(draw, value) for _, value in document]
    members = [f'{space}"{name}"{space}:{value}' for name, value in zip(names, values, strict=True)]
    return "{" + ",".join(members) + "}"


def spelled(draw: st.DrawFn, character: str) -> str:
    if character.isprintable() and character not in '"\\' and draw(st.booleans()):
        return character
    units = character.encode("utf-16-be", "surrogatepass").hex()
    units = units.upper() if draw(st.booleans()) else units
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


@st.composite
def documents(draw: st.DrawFn) -> tuple[Any, bytes]:
    """A document, and one way to write it."""
    document = draw(_DOCUMENTS)
    return document, text_of(draw, document).encode()


def has_a_duplicate_name(document: Any) -> bool:
    if isinstance(document, str):
        return False
    if isinstance(document, tuple):
        return any(map(has_a_duplicate_name, document))
    names = [name for name, _ in document]
    return len(set(names)) < len(names) or any(has_a_duplicate_name(value) for _, value in document)


@settings(max_examples=400)
@given(documents())
def test_a_document_is_refused_exactly_if_an_object_has_a_duplicate_name(
    written: tuple[Any, bytes],
) -> None:
    document, body = written
    if has_a_duplicate_name(document):
        with pytest.raises(Problem, match="has a name twice"):
            parse(body)
    else:
        parse(body)
