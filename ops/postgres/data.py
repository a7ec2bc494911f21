"""The data folder: created completely or not at all, and used only by the major version that created it."""

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

from ops.postgres.errors import DataUnusable, ServerFailed
from ops.postgres.orphans import FolderLock
from ops.postgres.programs import Programs


async def prepare(data: Path, programs: Programs, lock: FolderLock) -> None:
    """Creates `data` if it does not exist, and makes sure that `programs` can use it.

    Raises:
        DataUnusable: another major version made it, or it is no data folder of PostgreSQL.
        ServerFailed: initdb failed; there is still no data folder.
    """
    unfinished = await asyncio.to_thread(_new_folder_beside, data)
    if unfinished is not None:
        programs.launcher.give_ownership(unfinished)
        code, output = await programs.run(
            "initdb",
            f"--pgdata={unfinished}",
            "--username=postgres",
            "--auth-local=trust",  # only our account can enter the socket's folder
            "--auth-host=reject",
            "--encoding=UTF8",
            "--no-locale",
            "--no-instructions",
            inherited=lock.descriptor,
        )
        if code != 0:
            raise ServerFailed("PostgreSQL's initdb failed", output)
        await asyncio.to_thread(_rename_durably, unfinished, data)
    await asyncio.to_thread(_check, data, programs.major)
    await asyncio.to_thread(programs.launcher.give_ownership, data)


def _new_folder_beside(data: Path) -> Path | None:
    """Creates a folder for initdb if there is no data yet. Removes what a killed initdb left."""
    prefix = f"{data.name}.new-"
    for leftover in data.parent.glob(f"{prefix}*"):
        shutil.rmtree(leftover)
    return None if data.exists() else Path(tempfile.mkdtemp(prefix=prefix, dir=data.parent))


def _rename_durably(old: Path, new: Path) -> None:
    """Renames and syncs the parent folder: else a power cut may undo the rename, fsync(2)."""
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
        raise DataUnusable(data, "files that are not PostgreSQL's", major) from None
    if found != major:
        raise DataUnusable(data, f"data of PostgreSQL {found}", major)
