"""An earlier commit's code, for the benchmark and the fault runs: unpacked, or a sentence on why not."""

import subprocess
import sys

import pytest

from bench.earlier import NoEarlierVersion, unpacked
from tests.faults.previous_version import named, previous_version


def test_the_code_of_the_named_commit_is_unpacked_and_removed() -> None:
    with previous_version() as previous:
        assert (previous.folder / "services" / "order" / "main.py").is_file()
        assert (previous.folder / "libs" / "events" / "worker.py").is_file()
        assert named().startswith(previous.commit)
    assert not previous.folder.exists()


def test_a_process_of_an_earlier_version_runs_that_versions_code() -> None:
    with unpacked(named()) as earlier:
        told = subprocess.run(
            [
                sys.executable,
                "-c",
                "import events, services.order, ops; print(*events.__path__, *ops.__path__)",
            ],
            cwd=earlier.folder,
            env={"PYTHONPATH": earlier.python_path},
            capture_output=True,
            check=True,
            text=True,
        ).stdout.split()
    assert told == [str(earlier.folder / "libs" / "events"), str(earlier.folder / "ops")]


def test_a_commit_is_abbreviated_whatever_it_was_named_by() -> None:
    with unpacked("HEAD") as by_name, unpacked(by_name.commit) as by_hash:
        assert by_name.commit == by_hash.commit != "HEAD"


def test_a_commit_that_is_missing_is_one_sentence() -> None:
    missing = "0" * 40
    why = f"can't be unpacked.*{missing}: no such commit"
    with pytest.raises(NoEarlierVersion, match=why), unpacked(missing):
        pass
