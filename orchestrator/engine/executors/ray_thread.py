"""A thread for calls of Ray that may never return; the thread that makes them could answer no signal meanwhile."""

import atexit
import os
import queue
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import NoReturn

LOOK_SECONDS = 0.02


class NeverReturnedError(Exception):
    """A call of Ray did not return in time."""


class RayThread(threading.Thread):
    """Makes calls of Ray, one after the other, until it is told to end.

    It has to live as long as the Ray that it starts: the system kills the processes of Ray when the thread that started
    them ends.
    """

    def __init__(self) -> None:
        super().__init__(name="ray", daemon=True)
        self._calls: queue.SimpleQueue[tuple[Callable[[], object], Future[None]] | None] = queue.SimpleQueue()
        self._last: Future[None] | None = None
        self.start()

    @property
    def busy(self) -> bool:
        """Whether a call has not returned yet."""
        return self._last is not None and not self._last.done()

    def call(self, function: Callable[[], object], seconds: float) -> None:
        """Call a function, and answer signals until it returns.

        Args:
            function: what to call; what it returns is dropped.
            seconds: how long it may take; time in which this process is suspended does not count.

        Raises:
            NeverReturnedError: it takes longer.
            BaseException: what the function raises, or what a signal handler does.
        """
        self._last = Future()
        self._calls.put((function, self._last))
        self.wait(seconds)
        self._last.result()

    def wait(self, seconds: float) -> None:
        """Wait until the last call returns; raises NeverReturnedError if it does not in time."""
        last = self._last
        if last is None:
            return
        # Not by the clock: it goes on while Slurm or a user has suspended this process.
        while not last.done():
            if seconds < 0:
                raise NeverReturnedError
            seconds -= LOOK_SECONDS
            with suppress(TimeoutError):
                last.exception(LOOK_SECONDS)

    def shut_ray_down(self, seconds: float) -> None:
        """Disconnect from Ray, and end the one that this process has started; nothing is asked of one that is stuck.

        Raises:
            NeverReturnedError: it takes longer than so many seconds.
        """
        import ray

        try:
            if not self.busy:
                self.call(ray.shutdown, seconds)
        finally:
            if is_stuck():
                atexit.unregister(ray.shutdown)  # it would wait for what does not answer

    def end(self) -> None:
        """Let the thread end, after the call that it makes."""
        self._calls.put(None)

    def run(self) -> None:
        """Make the calls that are asked for."""
        while (asked := self._calls.get()) is not None:
            function, answer = asked
            try:
                function()
            except BaseException as error:
                answer.set_exception(error)
            else:
                answer.set_result(None)


def keep_handlers_of_signals() -> None:
    """Have Ray install none in this process as it connects: its own end the process, with a stack of addresses."""
    import ray

    ray._private.ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = True


def is_stuck() -> bool:
    """Tell whether a call of Ray that was given up has not returned."""
    return any(isinstance(each, RayThread) and each.busy for each in threading.enumerate())


def leave(status: int) -> NoReturn:
    """End this process, also where a call of Ray never returns; Python would wait for it, or crash.

    What is registered with atexit is done in either case.
    """
    if is_stuck():
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)
    sys.exit(status)
