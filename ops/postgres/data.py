"""The data folder: made whole or not at all, and used only by the major version that made it."""

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

from ops.postgres.errors import DataUnusable, ServerFailed
from ops.postgres.programs import Programs
from ops.postgres.survivors import Claim


async def prepare(data: Path, programs: Programs, claim: Claim) -> None:
    """Makes `data` if it is not there, and sees to it that `programs` can use it.

    Raises:
        DataUnusable: it is of another major version, or no data folder of PostgreSQL.
        ServerFailed: initdb failed; there is still no data folder.
    """
    unfinished = await asyncio.to_thread(_new_folder_beside, data)
    if unfinished is not None:
        programs.launcher.give(unfinished)
        code, words = await programs.run(
            "initdb",
            f"--pgdata={unfinished}",
            "--username=postgres",
            "--auth-local=trust",  # whoever can enter the socket's folder is us
            "--auth-host=reject",
            "--encoding=UTF8",
            "--no-locale",
            "--no-instructions",
            inherited=claim.inherited,
        )
        if code != 0:
            raise ServerFailed("PostgreSQL's initdb failed", words)
        await asyncio.to_thread(_rename_durably, unfinished, data)
    await asyncio.to_thread(_check, data, programs.major)
    await asyncio.to_thread(programs.launcher.give, data)


def _new_folder_beside(data: Path) -> Path | None:
    """A fresh folder for initdb, if there is no data yet; what a killed initdb left is removed."""
    prefix = f"{data.name}.new-"
    for leftover in data.parent.glob(f"{prefix}*"):
        shutil.rmtree(leftover)
    return None if data.exists() else Path(tempfile.mkdtemp(prefix=prefix, dir=data.parent))


def _rename_durably(old: Path, new: Path) -> None:
    """A rename outlives a power cut only when the folder that it happened in was synced: fsync(2)."""
    old.rename(new)
    folder = os.open(new.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _check(data: Path, major: str) -> None:
    try:
        found = (data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        raise DataUnusable(data, "something that is not PostgreSQL's", major) from None
    if found != major:
        raise DataUnusable(data, f"data of PostgreSQL {found}", major)
