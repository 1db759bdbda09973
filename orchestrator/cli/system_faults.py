"""What the operating system refuses a command: output, a folder, files, memory, processes."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import IO, Any, cast

from ntk_dist.device.faults import is_out_of_files, is_out_of_threads
from orchestrator.errors import ExitCode
from orchestrator.process_limits import no_more_threads, too_little_memory
from orchestrator.store.files import no_more_files

_NO_MEMORY = ("failed to map segment", "cannot allocate memory", "can't allocate memory", "unable to allocate")


FOLDER_GONE = (
    "the current folder is no longer there, and relative paths start from it; change to one that is (`cd`) and give "
    "the command again"
)


class ReaderGoneError(Exception):
    """Nobody reads any more what the command prints, as after `ntksweep show FOLDER | head`."""


class OutputError(Exception):
    """What the command prints cannot be written to where its output goes."""


def hold_standard_streams() -> None:
    """Open the standard streams that are closed, to nowhere.

    A file that a run opens would get the number of one that is closed, and take what libraries print.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one


class Output:
    """Standard output, whose errors say that they are its own; whoever prints need not know of them.

    Args:
        stream: the stream that it writes to.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text.

        Raises:
            ReaderGoneError: it is a pipe that nobody reads.
            OutputError: it cannot be written.
        """
        with self._told():
            return self._stream.write(text)

    def flush(self) -> None:
        """Write what is held back, as `write` does."""
        with self._told():
            self._stream.flush()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            self._drop()
            raise ReaderGoneError from None
        except OSError as error:
            self._drop()
            raise OutputError(error.strerror) from None

    def _drop(self) -> None:
        """Send what is held back nowhere: Python tries to write it once more at its end."""
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def own_output() -> Iterator[None]:
    """Print to an `Output` meanwhile, and write all of it."""
    if sys.stdout is None:  # it was closed when Python began
        yield
        return
    output = cast(IO[str], Output(sys.stdout))
    with redirect_stdout(output):
        try:
            yield
        finally:
            output.flush()


def system_fault(error: BaseException) -> tuple[str, ExitCode] | None:
    """Return a message about an error that is the system's, and the exit status; None if it is of another kind."""
    if isinstance(error, OutputError):
        return (
            f"what this command prints cannot be written to where its output goes ({error}); make room there, or let "
            "it go elsewhere"
        ), ExitCode.STORAGE
    if isinstance(error, FileNotFoundError) and folder_is_gone():
        return FOLDER_GONE, ExitCode.WRONG_INPUT
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, OSError) and is_out_of_files(error):
        return str(no_more_files(Path(str(error.filename or "a file")))), ExitCode.STORAGE
    said = str(error).lower()
    if number == errno.ENOMEM or isinstance(error, MemoryError) or any(each in said for each in _NO_MEMORY):
        return too_little_memory(), ExitCode.WRONG_INPUT
    if is_out_of_threads(error):
        return no_more_threads(), ExitCode.WRONG_INPUT
    return None


def folder_is_gone() -> bool:
    """Tell whether the current folder was removed."""
    try:
        os.getcwd()  # noqa: PTH109 - which asks the system itself
    except FileNotFoundError:
        return True
    return False
