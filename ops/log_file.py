"""The log of the system in one process: all lines in a file, warnings and errors also on the terminal."""

import logging
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

from chassis.settings import TextLogSettings, read
from chassis.telemetry import CountsLostLines, JsonFormatter

MAX_BYTES: Final = 10_000_000
OLDER_FILES: Final = 3
"""Number of full log files that are kept: `orderflow.log.1` to `.3`."""


class _File(CountsLostLines, RotatingFileHandler):
    """On a full disk, lines are lost and the process goes on."""


class _Notices(logging.Handler):
    """Reports the first line of each warning and error; the file has the tracebacks."""

    def __init__(self, notify: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._notify = notify

    def emit(self, record: logging.LogRecord) -> None:
        """Reports level and message in one line."""
        first_line = record.getMessage().partition("\n")[0]
        try:
            self._notify(f"{record.levelname.lower()}: {first_line}")
        except OSError:  # the terminal is closed, which must not stop the code that logs
            self.handleError(record)


def log_to_file(file: Path, notify: Callable[[str], None]) -> None:
    """Sends this process's log to `file`, and passes warnings and errors to `notify`.

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
    root.handlers[:] = [lines, _Notices(notify)]
    root.setLevel(settings.log_level)
    for chatty in ("httpx", "httpcore", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
