"""Logging survives any text and a full disk."""

import json
import logging
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest

from chassis import telemetry
from chassis.settings import LogSettings
from ops import log_file

FOREIGN = "554 \udce7a ne va pas \0"
"""As Python reads what a server says in Latin-1 (PEP 383)."""
LEGIBLE = "554 \N{REPLACEMENT CHARACTER}a ne va pas \N{REPLACEMENT CHARACTER}"

logger = logging.getLogger("orderflow.test")


@pytest.fixture(autouse=True)
def root() -> Iterator[None]:
    """The root logger as it was before."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_line_of_json_takes_any_text(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure_logging("email", LogSettings(log_format="json"))
    try:
        raise ValueError(FOREIGN)
    except ValueError:
        logger.exception("the server says: %s", FOREIGN)
    line = json.loads(capsys.readouterr().err)
    assert line["message"] == f"the server says: {LEGIBLE}"
    assert LEGIBLE in line["error"]


def test_the_log_file_of_make_run_takes_any_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "orderflow.log"
    log_file.log_to_file(file, lambda _: None)
    logger.warning("the server says: %s", FOREIGN)
    assert "554 \\udce7a ne va pas" in file.read_text()
    assert capsys.readouterr().err == ""


class Full(StringIO):
    """A stream on a disk that may be full."""

    full = False

    def write(self, text: str) -> int:
        if self.full:
            raise OSError(28, "No space left on device")
        return super().write(text)


def test_a_full_disk_is_one_line_and_the_lost_lines_are_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = Full()
    monkeypatch.setattr(telemetry.sys, "stderr", disk)  # type: ignore[attr-defined]  # where the log goes
    telemetry.configure_logging("email", LogSettings(log_format="json"))
    monkeypatch.undo()
    disk.full = True
    for number in range(10):
        logger.warning("line %d", number)
    assert capsys.readouterr().err == "The log can't be written: No space left on device.\n"
    disk.full = False
    logger.warning("the last line")
    messages = [json.loads(line)["message"] for line in disk.getvalue().splitlines()]
    assert messages == ["the last line", "10 lines of this log were lost: it could not be written"]
