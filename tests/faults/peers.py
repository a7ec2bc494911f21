"""Finds the process at the other end of a local connection."""

from contextlib import suppress
from pathlib import Path


def process_at(port: int) -> int | None:
    """The id of the local process whose connection uses this port; None if there is none."""
    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    inodes = {fields[9] for line in lines if (fields := line.split())[1].endswith(f":{port:04X}")}
    wanted = {f"socket:[{inode}]" for inode in inodes - {"0"}}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(OSError):  # it has ended, or belongs to another user
                if any(str(file.readlink()) in wanted for file in (process / "fd").iterdir()):
                    return int(process.name)
    return None
