"""The end of a command that a signal told to stop."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from orchestrator.cli.stopping import STATUSES, StoppedError, ending, stop_as_by_ctrl_c
from orchestrator.errors import ExitCode


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Leave the handlers of signals as they were."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in STATUSES}
    stop_as_by_ctrl_c()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STATUSES)
def test_the_status_names_the_signal_also_where_a_library_makes_a_plain_interrupt_of_it(number: signal.Signals):
    try:
        os.kill(os.getpid(), number)
        time.sleep(5)
    except StoppedError:  # Ray does so where the signal interrupts a call of it
        with pytest.raises(KeyboardInterrupt):
            raise KeyboardInterrupt from None
    message, status = ending()
    assert status == STATUSES[number]
    assert message.startswith(f"interrupted by {number.name};")


def test_ctrl_c_names_no_signal():
    assert ending()[1] == ExitCode.INTERRUPTED
    assert ending()[0].startswith("interrupted;")
