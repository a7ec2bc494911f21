"""The entry of processes that may be told to die: `python -m tests.faults.armed services.order.main`.

On SIGUSR1 the process reads the file that ARM names: a kill point and part of a task's name on one line. The
next time that such a task reaches that point, the process says so in its log and kills itself (SIGKILL).
"""

import asyncio
import os
import runpy
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Final

from events.killpoints import KillPoint, arm

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


def main() -> None:
    """Runs the module that the arguments name, with the rest of them, as it would run by itself."""
    signal.signal(signal.SIGUSR1, _on_signal)
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
