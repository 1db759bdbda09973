"""Keeping transformers from printing."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging as transformers_logging


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from printing bars and load reports; the callers report missing weights themselves.

    What it warns of still reaches handlers that write to files.
    """
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    handlers = transformers_logging.get_logger("transformers").handlers
    printing = [(each, each.level) for each in handlers if not isinstance(each, logging.FileHandler)]
    for handler, _ in printing:
        handler.setLevel(logging.ERROR)
    transformers_logging.set_verbosity(min(verbosity, logging.WARNING))
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        for handler, level in printing:
            handler.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()
