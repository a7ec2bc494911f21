"""The previous version: the code of an earlier commit, for processes that run beside this checkout's.

The file `previous` names the commit: the release that this checkout has to work beside.
"""

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_FILE: Final = Path(__file__).with_name("previous")
_CODE: Final = ("libs", "services", "ops")


class NoPreviousVersion(Exception):
    """The commit that tests/faults/previous names can't be had, or its code is this checkout's own."""

    def __init__(self, commit: str, said: str) -> None:
        super().__init__(f"{self.__doc__} ({commit}: {said})")


@dataclass(frozen=True)
class PreviousVersion:
    """An earlier commit's code, unpacked."""

    commit: str
    folder: Path


def named() -> str:
    """The commit that the file names."""
    return _FILE.read_text(encoding="ascii").strip()


@contextmanager
def unpacked(commit: str) -> Iterator[PreviousVersion]:
    """The code of this commit, in a folder that is removed at the end. Raises NoPreviousVersion."""
    archive = _git(commit, "archive", "--format=tar", commit, *_CODE)
    if not _git(commit, "diff", "--name-only", commit, "--", *_CODE):
        raise NoPreviousVersion(commit, "nothing differs")
    with tempfile.TemporaryDirectory(prefix="orderflow-previous-") as name:
        folder = Path(name).resolve()
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(folder, filter="data")
        yield PreviousVersion(commit[:7], folder)


def _git(commit: str, *arguments: str) -> bytes:
    here = _FILE.parents[2]
    try:
        done = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        raise NoPreviousVersion(commit, "git is not installed") from None
    if done.returncode:
        raise NoPreviousVersion(commit, done.stderr.decode(errors="replace").strip())
    return done.stdout
