"""The previous version of the fault runs: an earlier commit's code, or a sentence on why not."""

import pytest

from tests.faults.previous_version import NoPreviousVersion, named, unpacked


def test_the_code_of_the_named_commit_is_unpacked_and_removed() -> None:
    with unpacked(named()) as previous:
        assert (previous.folder / "services" / "order" / "main.py").is_file()
        assert (previous.folder / "libs" / "events" / "worker.py").is_file()
    assert not previous.folder.exists()


def test_a_commit_that_is_missing_is_one_sentence() -> None:
    missing = "0" * 40
    with pytest.raises(NoPreviousVersion, match=f"can't be had.*{missing}"), unpacked(missing):
        pass
