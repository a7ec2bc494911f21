"""The entry of processes that may be told to die: `python -P tests/faults/armed.py services.order.main`.

It is started as a file, so that a process of another version's code has this entry too: PYTHONPATH says where
`services`, `ops` and `libs` are. First the process says in its log where it found them.

On SIGUSR1 the process reads the file that ARM names: a kill point and part of a task's name on one line. The
next time that such a task reaches that point, the process says so in its log and kills itself (SIGKILL).
"""

import asyncio
import importlib.util
import os
import runpy
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Final

from events import killpoints
from events.killpoints import KillPoint, arm

FIRST_WORDS: Final = "runs the code in"
LAST_WORDS: Final = "dies at the kill point"


def _on_signal(_: int, __: FrameType | None) -> None:
    order = Path(os.environ["ARM"]).read_text(encoding="utf-8").strip()
    point, task_name = order.split(" ", maxsplit=1)
    armed = KillPoint(point)

    def reached(at: KillPoint) -> None:
        if at is not armed:
            return
        task = asyncio.current_task()
        name = task.get_name() if task else ""
        if task_name in name:
            os.write(2, f'{LAST_WORDS} {at} in "{name}"\n'.encode())
            os.kill(os.getpid(), signal.SIGKILL)

    arm(reached)


def _folders_of_code(module: str) -> set[Path]:
    """The folders whose `libs`, and whose `services` or `ops`, this process imports: it should be one."""
    found = importlib.util.find_spec(module)
    assert found
    assert found.origin
    return {
        Path(found.origin).resolve().parents[module.count(".")],
        Path(killpoints.__file__).resolve().parents[2],
    }


def main() -> None:
    """Runs the module that the arguments name, with the rest of them, as it would run by itself."""
    signal.signal(signal.SIGUSR1, _on_signal)
    del sys.argv[0]
    folders = " ".join(sorted(map(str, _folders_of_code(sys.argv[0]))))
    os.write(2, f"process {os.getpid()} {FIRST_WORDS} {folders}\n".encode())
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
