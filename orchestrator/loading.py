"""Loading large libraries without garbage collection, which would take a quarter of their loading time."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any


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
        _load_names_of_models()
        import peft  # noqa: F401
        from transformers import PreTrainedModel  # noqa: F401 - the module behind it is a large one

        gc.freeze()  # before the next collection, which would scan all of it


def _load_names_of_models() -> None:
    """Load transformers and its package of all models, for both of which it reads the source files of every model.

    It keeps what it has read of the latest folders alone, by the path that was asked for: that of the folder, then that
    of a file in it. Asking for the folder both times leaves out the second reading, a third of a second of a processor.
    """
    from transformers.utils import import_utils

    read = getattr(import_utils, "create_import_structure_from_path", None)
    if read is None:  # a version that finds names in another way
        return

    def read_folder(path: str | Path) -> Any:
        return read(Path(path).parent if Path(path).is_file() else Path(path))

    import_utils.create_import_structure_from_path = read_folder
    try:
        import transformers.models  # noqa: F401
    finally:
        import_utils.create_import_structure_from_path = read
