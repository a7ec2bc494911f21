"""Faster loading of a function's modules."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Disables garbage collection for the imports in this block, and exempts their objects from it for ever.

    Collections would take a tenth to a fifth of the time in which modules are loaded, and free nothing.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
