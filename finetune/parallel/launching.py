"""Starting the processes of a group on one machine, through torch's elastic launcher."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from finetune.errors import ProcessGroupError

START_METHOD = "spawn"
"""Python's start method for the processes: new interpreters, which inherit nothing but the environment."""


def run_group(size: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Run a function in a group of new processes; return what each returned, in the order of their ranks.

    The function is importable, its arguments and results can be pickled; in it `joined_group` finds the others. As soon
    as one process fails or dies the others are ended: no process is left. They listen on loopback alone.

    Args:
        size: how many processes.
        work: what each runs.
        arguments: of `work`.

    Raises:
        ProcessGroupError: a process failed; says which, and why.
    """
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=size,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        monitor_interval=0.01,  # the first to end is at fault: the others lose their connection to it, and end as well
        start_method=START_METHOD,
    )
    try:
        with _handlers_as_before():
            found = elastic_launch(config, work)(*arguments)
        return [found[rank] for rank in range(size)]
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
    # Raised after the except block, so that the error does not keep the launcher alive, which would go on listening.
    raise ProcessGroupError(f"process {rank} of a process group of {size} {_why(failure)}; the others were ended")


@contextmanager
def _handlers_as_before() -> Iterator[None]:
    """Put the handlers of signals back at the end: the launcher leaves its own, which makes no interrupt of Ctrl-C."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    before = {number: signal.getsignal(number) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


def _why(failure: ProcessFailure) -> str:
    if failure.exitcode < 0:
        return f"was killed by {signal.Signals(-failure.exitcode).name}"
    said = failure.error_file_data.get("message")
    reason = said.get("message") if isinstance(said, dict) else None
    return f"failed: {reason or f'exit status {failure.exitcode}'}"
