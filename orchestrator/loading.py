"""Loading large libraries without looking for garbage meanwhile, which takes a quarter of the time that they take."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache


@contextmanager
def no_garbage() -> Iterator[None]:
    """Inside, Python looks for no cycles of objects that nobody uses: what a library makes when it is loaded stays.

    Each such look goes through everything that was loaded before.
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
    """Load what reads data and runs models, once a process; later looks for garbage pass over it."""
    with no_garbage():
        import peft  # noqa: F401
        from transformers import PreTrainedModel  # noqa: F401 - the module behind it is a large one

        gc.freeze()  # before the next look, which would go through all of it
