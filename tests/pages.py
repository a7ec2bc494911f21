"""The pages for users: what they are, and how their generated tables follow the code.

A generated table stands between `<!-- generated: NAME -->` and `<!-- end -->`. Its cells come from the code.
Where people write the last column, `python -m tests.pages` keeps it, and leaves it empty in new rows.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
USER_PAGES: Final = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
)
"""The pages that users and contributors read; lab notes and decision records are not among them."""
EVERY_PAGE: Final = (*USER_PAGES, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*/*.md")))

_BLOCK: Final = re.compile(r"(?<=<!-- generated: )([a-z-]+)( -->\n)(.*?)(?=<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Table:
    """A table whose cells come from the code."""

    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    """The first cell of a row is its key."""
    written: str | None = None
    """The heading of a last column that people write."""

    def markdown(self, page: str) -> str:
        """The table, with the last column's cells as they stand in `page`."""
        kept = {cells[0]: cells[-1] for cells in cells_of(page) if len(cells) == len(self.header) + 1}
        lines = [self.header, ("---",) * len(self.header), *self.rows]
        if self.written is not None:
            beside = [self.written, "---", *(kept.get(row[0], "") for row in self.rows)]
            lines = [(*line, cell) for line, cell in zip(lines, beside, strict=True)]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines).replace("|  |", "| |")


def cells_of(text: str) -> Iterator[list[str]]:
    """The cells of each line of the tables in a text, headings and rules included."""
    for line in text.splitlines():
        if line.startswith("|"):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|").removesuffix("|"))]


def code(text: str) -> str:
    """A text as code in a table's cell."""
    return f"`{text}`".replace("|", r"\|")


def renewed(page: str, tables: Mapping[str, Callable[[], Table]]) -> str:
    """The page, with its generated tables as the code has them now."""
    return _BLOCK.sub(lambda found: found[1] + found[2] + tables[found[1]]().markdown(found[3]), page)


def unwritten(page: str, tables: Mapping[str, Callable[[], Table]]) -> list[str]:
    """The keys of the rows of generated tables in which people have written nothing yet."""
    return [
        cells[0]
        for name, _, block in _BLOCK.findall(page)
        if tables[name]().written is not None
        for cells in cells_of(block)
        if not cells[-1]
    ]


def generated() -> Mapping[str, Mapping[str, Callable[[], Table]]]:
    """The generated tables of each page in docs/, by the page's file name."""
    from tests import api_reference, settings_reference  # noqa: PLC0415  # they make their tables with this

    return {"api.md": api_reference.TABLES, "configuration.md": settings_reference.TABLES}


if __name__ == "__main__":
    for name, found in generated().items():
        file = ROOT / "docs" / name
        file.write_text(renewed(file.read_text("utf-8"), found), "utf-8")
