"""Loading large libraries without garbage collection, which would take a quarter of their loading time."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache


@contextmanager
def no_garbage() -> Iterator[None]:
    """Turn off Python's garbage collection in the context: objects that a library creates while it loads stay in use.

    Each collection would scan everything that was loaded before.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@cache
def load_model_libraries() -> None:
    """Load the libraries that read data and run models, once a process; later garbage collections skip them."""
    with no_garbage():
        import peft  # noqa: F401
        from transformers import PreTrainedModel  # noqa: F401 - the module behind it is a large one

        gc.freeze()  # before the next collection, which would scan all of it
