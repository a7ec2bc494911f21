"""Unpacks an earlier commit's code, for processes that run beside those of this checkout."""

import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_CODE: Final = ("libs", "services", "ops")
_ROOT: Final = Path(__file__).resolve().parents[1]


class NoEarlierVersion(Exception):
    """The earlier commit's code can't be unpacked."""

    def __init__(self, commit: str, reason: str) -> None:
        super().__init__(f"{self.__doc__} ({commit}: {reason})")


@dataclass(frozen=True)
class EarlierVersion:
    """The code of a commit (`libs`, `services` and `ops`) in a folder of its own."""

    commit: str
    """The abbreviated hash."""
    folder: Path

    @property
    def python_path(self) -> str:
        """PYTHONPATH for its processes. Their working directory is `folder`."""
        return os.pathsep.join((str(self.folder), str(self.folder / "libs")))


@contextmanager
def unpacked(commit: str) -> Iterator[EarlierVersion]:
    """Unpacks the code of a commit, and removes it at the end of the block. Raises NoEarlierVersion.

    `commit` is any name that git resolves: a hash, a tag, `HEAD~3`.
    """
    short = _git(
        commit,
        "rev-parse",
        "--short",
        "--verify",
        "--quiet",
        f"{commit}^{{commit}}",
        missing="no such commit",
    )
    archive = _git(commit, "archive", "--format=tar", commit, *_CODE)
    with tempfile.TemporaryDirectory(prefix="orderflow-earlier-") as name:
        folder = Path(name).resolve()
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(folder, filter="data")
        yield EarlierVersion(short.decode().strip(), folder)


def differs(commit: str) -> bool:
    """Returns whether this checkout's code differs from the commit's. Raises NoEarlierVersion."""
    return bool(_git(commit, "diff", "--name-only", commit, "--", *_CODE))


def _git(commit: str, *arguments: str, missing: str = "") -> bytes:
    try:
        done = subprocess.run(["git", "-C", str(_ROOT), *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        raise NoEarlierVersion(commit, "git is not installed") from None
    if done.returncode:
        raise NoEarlierVersion(commit, done.stderr.decode(errors="replace").strip() or missing)
    return done.stdout
