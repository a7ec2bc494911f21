"""The previous version: the code of the last release, for processes that run beside this checkout's.

The file `previous` contains the release's commit.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.earlier import EarlierVersion, NoEarlierVersion, differs, unpacked

_FILE: Final = Path(__file__).with_name("previous")


def named() -> str:
    """The commit in the file."""
    return _FILE.read_text(encoding="ascii").strip()


@contextmanager
def previous_version() -> Iterator[EarlierVersion]:
    """Unpacks its code into a folder that is removed at the end.

    Raises NoEarlierVersion, also if its code does not differ from this checkout's.
    """
    with unpacked(named()) as previous:
        if not differs(named()):
            raise NoEarlierVersion(named(), "nothing differs")
        yield previous
