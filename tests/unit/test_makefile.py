"""`make help` shows every target on one screen."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INTERNAL = {"help", "environment", "dev-environment", "lint", "types", "imports", "locks", "template"}


def test_help_names_every_target_and_fits_a_screen() -> None:
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    lines = shown.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80

    makefile = (ROOT / "Makefile").read_text("utf-8").replace("\\\n", " ")
    [phony] = re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    described = {line.split()[0] for line in lines if line.startswith("  ")}
    assert described == set(phony.split()) - INTERNAL
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert targets == set(phony.split())
