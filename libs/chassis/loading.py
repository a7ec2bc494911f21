"""Loading a function's modules in less time."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """What is imported in this block stays for ever, so the garbage collector never looks through it.

    It would do so again and again while modules are loaded, for a tenth to a fifth of the time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
