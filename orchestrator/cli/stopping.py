"""Handling of stop signals: SIGTERM and SIGHUP end a command as Ctrl-C does."""

import signal
from types import FrameType

from orchestrator.errors import ExitCode

STATUSES = {signal.SIGTERM: ExitCode.TERMINATED, signal.SIGHUP: ExitCode.HUNG_UP}


class StoppedError(KeyboardInterrupt):
    """A signal told the command to stop.

    Attributes:
        signal: which.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)


def stop_as_by_ctrl_c() -> None:
    """Make SIGTERM (from containers, services and `kill`) and SIGHUP (from a closed terminal) raise StoppedError.

    A signal that is ignored, as SIGHUP is under nohup, stays ignored.
    """
    for number in STATUSES:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _stop)


def end_at_once() -> None:
    """Make SIGTERM end this process at once."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def ending(error: BaseException | None) -> tuple[str, ExitCode]:
    """Return the message about an interrupt, and the exit status."""
    by, status = "", ExitCode.INTERRUPTED
    if isinstance(error, StoppedError):
        by, status = f" by {error.signal.name}", STATUSES[error.signal]
    return f"interrupted{by}; finished stages are kept. Run the same command again to go on.", status


def _stop(number: int, _: FrameType | None) -> None:
    raise StoppedError(number)
