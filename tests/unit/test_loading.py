"""Loading a function's modules."""

import gc

import pytest

from chassis.loading import without_garbage_collection


def test_the_collector_rests_while_modules_are_loaded_and_works_again_whatever_happened() -> None:
    frozen = gc.get_freeze_count()
    try:
        with pytest.raises(ImportError), without_garbage_collection():
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled()
        assert gc.get_freeze_count() > frozen
    finally:
        gc.unfreeze()
