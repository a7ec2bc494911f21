"""Where a demo keeps its state: a folder of its own, of which the latest few are kept to look at."""

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
async def fresh() -> AsyncIterator[StateFolder]:
    """A new folder, held. Older ones than the latest KEPT are removed, with what a kill left running on them.

    One that a demo still works on stays, and one of another account.
    """
    name = f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{os.getpid()}"
    with lock_state_folder(PARENT / name) as state:
        for folder in sorted(PARENT.iterdir())[:-KEPT]:
            with suppress(CommandFailed, PermissionError), lock_state_folder(folder) as old:
                if old.postgres.is_dir():
                    await stop_orphan(old.postgres)
                await asyncio.to_thread(shutil.rmtree, folder)
        yield state
