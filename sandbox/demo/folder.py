"""The state folders of demo runs. The latest few stay, so that people can look into them."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Final

from ops.errors import CommandFailed
from ops.postgres import stop_orphan
from ops.state import StateFolder, lock_state_folder

PARENT: Final = Path("var/demo")
KEPT: Final = 3


@asynccontextmanager
async def new_state() -> AsyncIterator[StateFolder]:
    """Creates and locks a state folder, and removes all but the latest KEPT.

    Stops a PostgreSQL that a killed run left on a removed folder. Keeps folders that are in use or belong to
    another account.
    """
    name = f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{os.getpid()}"
    with lock_state_folder(PARENT / name) as state:
        for folder in sorted(PARENT.iterdir())[:-KEPT]:
            with suppress(CommandFailed, PermissionError), lock_state_folder(folder) as old:
                if old.postgres.is_dir():
                    await stop_orphan(old.postgres)
                await asyncio.to_thread(shutil.rmtree, folder)
        yield state
