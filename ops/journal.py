"""The log of the system in one process: all of it in a file, what matters also before the person's eyes."""

import logging
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

from chassis.settings import TextLogSettings, read
from chassis.telemetry import CountsLostLines, JsonFormatter

MAX_BYTES: Final = 10_000_000
OLDER_FILES: Final = 3
"""How many full log files are kept: `orderflow.log.1` to `.3`."""


class _File(CountsLostLines, RotatingFileHandler):
    """The file; a full disk ends nothing but its lines."""


class _Notices(logging.Handler):
    """Tells a person of warnings and errors, a line each; the tracebacks are in the file."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        """One line: level and message."""
        first_line = record.getMessage().partition("\n")[0]
        try:
            self._tell(f"{record.levelname.lower()}: {first_line}")
        except OSError:  # the terminal is gone, and whoever logs has other work
            self.handleError(record)


def log_to(file: Path, tell: Callable[[str], None]) -> None:
    """Sends this process's log to `file`, and hands warnings and errors to `tell`.

    Raises UnusableSettings.
    """
    settings = read(TextLogSettings)
    lines = _File(
        file, maxBytes=MAX_BYTES, backupCount=OLDER_FILES, encoding="utf-8", errors="backslashreplace"
    )
    lines.setFormatter(
        JsonFormatter("orderflow")
        if settings.log_format == "json"
        else logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    )
    root = logging.getLogger()
    root.handlers[:] = [lines, _Notices(tell)]
    root.setLevel(settings.log_level)
    for chatty in ("httpx", "httpcore", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
