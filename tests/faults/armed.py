"""Entry point of processes that can be killed at a kill point.

Usage: `python -P tests/faults/armed.py services.order.main`. It is started as a file, so that processes of
another version use it too; PYTHONPATH has the folders of `services`, `ops` and `libs`. The process first logs
where it found them.

On SIGUSR1 the process reads the file that ARM names: one line with a kill point and part of a task's name.
When such a task next reaches that point, the process logs it and kills itself with SIGKILL.
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

CODE_LOG: Final = "runs the code in"
DEATH_LOG: Final = "dies at the kill point"


def _on_signal(_: int, __: FrameType | None) -> None:
    line = Path(os.environ["ARM"]).read_text(encoding="utf-8").strip()
    point, task_name = line.split(" ", maxsplit=1)
    armed = KillPoint(point)

    def reached(at: KillPoint) -> None:
        if at is not armed:
            return
        task = asyncio.current_task()
        name = task.get_name() if task else ""
        if task_name in name:
            os.write(2, f'{DEATH_LOG} {at} in "{name}"\n'.encode())
            os.kill(os.getpid(), signal.SIGKILL)

    arm(reached)


def _folders_of_code(module: str) -> set[Path]:
    """The folders from which this process imports `libs`, and `services` or `ops`: it should be one."""
    found = importlib.util.find_spec(module)
    assert found
    assert found.origin
    return {
        Path(found.origin).resolve().parents[module.count(".")],
        Path(killpoints.__file__).resolve().parents[2],
    }


def main() -> None:
    """Runs the module that the first argument names, with the other arguments, as `python -m` does."""
    signal.signal(signal.SIGUSR1, _on_signal)
    del sys.argv[0]
    folders = " ".join(sorted(map(str, _folders_of_code(sys.argv[0]))))
    os.write(2, f"process {os.getpid()} {CODE_LOG} {folders}\n".encode())
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
