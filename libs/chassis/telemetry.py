"""Logging: one JSON object per line, or plain text for people."""

import logging
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import msgspec

from chassis.settings import LogSettings
from events.text import storable

FIELDS: Final = ("order_id", "stage", "seconds", "orders")
"""Extra fields of a record: an order, its stage, seconds since it was placed, a number of orders."""

_encoder = msgspec.json.Encoder()


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON: time, level, service, logger, message, FIELDS, any error."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its newline."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": storable(record.getMessage()),
        }
        line |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if record.exc_info:
            line["error"] = storable(self.formatException(record.exc_info))
        return _encoder.encode(line).decode()


class CountsLostLines(logging.Handler):
    """Mixed into a handler: counts the lines that are lost while the log can't be written (a full disk).

    It says so in one line on standard error, and in one line of the log when that can be written again. The
    standard library would print a traceback for each line.
    """

    _lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Writes the record. The first one after lost lines is followed by a line with their number."""
        lost = self._lost
        super().emit(record)
        if lost and lost == self._lost:
            self._lost = 0
            message = "%d lines of this log were lost: it could not be written"
            super().emit(_record(logging.WARNING, message, lost))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # the library's name
        """Counts a lost line."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        if not self._lost:
            with suppress(OSError):
                print(f"The log can't be written: {error.strerror}.", file=sys.stderr)  # noqa: T201  # no log
        self._lost += 1


class _Lines(CountsLostLines, logging.StreamHandler[TextIO]):
    """Writes lines to a stream."""


def _record(level: int, message: str, *arguments: object) -> logging.LogRecord:
    """A record of this module."""
    return logging.LogRecord(__name__, level, __file__, 0, message, arguments, None)


def configure_logging(service: str, settings: LogSettings) -> None:
    """Sends the log of this process to standard error."""
    handler = _Lines(sys.stderr)
    if settings.log_format == "json":
        handler.setFormatter(JsonFormatter(service))
    else:
        handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")
        )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    for chatty in ("uvicorn.access", "httpx", "httpcore", "aiormq", "aio_pika"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
