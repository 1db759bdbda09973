"""The end of a command that a signal told to stop."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from orchestrator.cli.stopping import AS_ONE, STATUSES, STOPPING, StoppedError, ending, said_at_once, stop_as_by_ctrl_c
from orchestrator.errors import ExitCode
from tests.root import ROOT


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Leave the handlers of signals, and of errors that cannot be raised, as they were."""
    hook = sys.unraisablehook
    before = {number: signal.signal(number, signal.SIG_DFL) for number in STATUSES}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    stop_as_by_ctrl_c()
    yield
    sys.unraisablehook = hook
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


@pytest.mark.parametrize("number", [signal.SIGINT, *STATUSES])
def test_a_signal_that_comes_to_the_process_and_to_its_group_counts_once(number: signal.Signals):
    said: list[str] = []
    with said_at_once(said.append), pytest.raises(KeyboardInterrupt):
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        finally:  # the command ends its work
            os.kill(os.getpid(), number)
            time.sleep(AS_ONE)
            said.append("done")
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)
                time.sleep(5)
    assert said == [STOPPING, "done"]


def test_ctrl_c_names_no_signal():
    assert ending()[1] == ExitCode.INTERRUPTED
    assert ending()[0].startswith("interrupted;")


WHILE_IT_LOADS = """
import os, signal, sys
class Told:
    def find_spec(self, name, path=None, target=None):
        if name == "orchestrator.cli.app":
            os.kill(os.getpid(), signal.Signals[sys.argv[1]])
sys.meta_path.insert(0, Told())
from ntksweep.__main__ import main
main()
"""

WHILE_IT_SAYS_SO = """
import os, signal, sys, time
import orchestrator.cli.app as cli
from orchestrator.cli.stopping import AS_ONE
def told():
    os.kill(os.getpid(), signal.Signals[sys.argv[1]])
    time.sleep(5)
def told_again():
    time.sleep(AS_ONE)
    told()
cli.app, cli.ending = told, told_again
from ntksweep.__main__ import main
main()
"""

AT_ITS_END = """
import atexit, os, signal, sys
number = signal.Signals[sys.argv[1]]
atexit.register(lambda: os.kill(os.getpid(), number))
sys.argv = ["ntksweep", "--version"]
from ntksweep.__main__ import main
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=str)
@pytest.mark.parametrize("code", [WHILE_IT_LOADS, AT_ITS_END], ids=["while it loads", "at its end"])
def test_a_signal_before_and_after_the_command_ends_it_without_a_traceback(code: str, number: signal.Signals):
    command, environment = [sys.executable, "-c", code, number.name], {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == -number
    assert ended.stderr == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=str)
def test_a_further_signal_while_the_command_says_how_it_ended_ends_it_without_a_traceback(number: signal.Signals):
    command = [sys.executable, "-c", WHILE_IT_SAYS_SO, number.name]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 128 + number
    assert ended.stderr == ""


@pytest.mark.parametrize("number", [signal.SIGINT, *STATUSES])
def test_a_signal_whose_interrupt_python_drops_still_stops_the_command(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
):
    class Last:
        def __del__(self) -> None:  # what is raised in it is dropped
            os.kill(os.getpid(), number)
            for _ in range(1000):
                pass

    last = Last()
    with pytest.raises(KeyboardInterrupt):
        del last
        time.sleep(5)
    assert capsys.readouterr().err == ""


def test_another_error_that_python_drops_is_reported(capsys: pytest.CaptureFixture[str]):
    class Faulty:
        def __del__(self) -> None:
            raise ValueError("not an interrupt")

    faulty = Faulty()
    del faulty
    assert "ValueError: not an interrupt" in capsys.readouterr().err
