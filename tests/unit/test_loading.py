"""A Lambda function's modules are loaded without garbage collection."""

import gc

import pytest

from chassis.loading import without_garbage_collection


def test_garbage_collection_is_off_while_modules_load_and_on_again_after_any_outcome() -> None:
    frozen = gc.get_freeze_count()
    try:
        with pytest.raises(ImportError), without_garbage_collection():
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled()
        assert gc.get_freeze_count() > frozen
    finally:
        gc.unfreeze()
