"""The previous version: the code of an earlier commit, for processes that run beside this checkout's.

The file `previous` names the commit: the release that this checkout has to work beside.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.earlier import EarlierVersion, NoEarlierVersion, differs, unpacked

_FILE: Final = Path(__file__).with_name("previous")


def named() -> str:
    """The commit that the file names."""
    return _FILE.read_text(encoding="ascii").strip()


@contextmanager
def previous_version() -> Iterator[EarlierVersion]:
    """Its code, in a folder that is removed at the end.

    Raises NoEarlierVersion, also when its code is this checkout's own.
    """
    with unpacked(named()) as previous:
        if not differs(named()):
            raise NoEarlierVersion(named(), "nothing differs")
        yield previous
