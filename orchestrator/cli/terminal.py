"""The terminal: texts are printed literally, never as markup or control sequences."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import copy
from typing import IO, Any, cast

from rich.console import Console
from rich.text import Text

from orchestrator.literal import printable
from orchestrator.process_log import LiteralFormatter, is_worth_telling

UNLIMITED = 10_000
"""Columns of what is no terminal."""


class Terminal(Console):
    """A console that prints brackets and `:smile:` literally, and control characters escaped.

    Styles come from `style=` and from `line`, so that no text of a user can set or break one.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        # What standard error does not take is dropped: a run is worth more than its bars.
        into = cast(IO[str], _Forgiving(sys.stderr)) if stderr and sys.stderr is not None else None
        super().__init__(file=into, stderr=stderr, markup=False, emoji=False, highlight=False)
        if not self.is_terminal:
            self.width = UNLIMITED  # who reads a pipe or a file wants a line where a line was written

    def render_str(self, text: str, **options: Any) -> Text:
        """Return the text as it is shown; tables and `print` call it."""
        return super().render_str(printable(text), **options)


class _Forgiving:
    """A stream whose errors do not matter: its terminal may be closed, its disk full, nobody may read it."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def line(text: str, style: str = "") -> Text:
    """Return a text with a style, for a table or a view; `Text` itself would not escape control characters."""
    return Text(printable(text), style)


def say(text: str) -> None:
    """Print a text on standard output without line wrapping or style, for people and scripts."""
    print(printable(text))


@contextmanager
def log_on_terminal(verbosity: int) -> Iterator[None]:
    """Show on standard error what this process logs.

    Args:
        verbosity: 0 for nothing, 1 for what is decided (INFO), 2 and more for everything (DEBUG) and tracebacks.
    """
    if not verbosity:
        yield
        return
    handler = _TerminalLog(verbosity)
    handler.setFormatter(LiteralFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"))
    handler.addFilter(is_worth_telling)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


class _TerminalLog(logging.Handler):
    """Writes records to standard error as it is at that time: progress bars put themselves in its place."""

    def __init__(self, verbosity: int) -> None:
        super().__init__(logging.INFO if verbosity == 1 else logging.DEBUG)
        self._with_tracebacks = verbosity > 1

    def emit(self, record: logging.LogRecord) -> None:
        if not self._with_tracebacks:
            record = copy(record)
            record.exc_info = record.exc_text = None
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except OSError:
            return  # the terminal may be closed
        except Exception:
            self.handleError(record)
