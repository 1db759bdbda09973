"""A real kernel of Jupyter: what a run, results and pictures show there, and what its stop button does."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.orchestrator.sweeps import make_sweep

manager = pytest.importorskip("jupyter_client.manager", reason="ipykernel is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")

SECONDS = 120
"""Within which any cell has to end."""


class Kernel:
    """A kernel of this Python in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._manager, self._client = manager.start_new_kernel(kernel_name="python3", cwd=str(folder))
        self.execute("import ntksweep")

    def execute(self, code: str) -> list[dict[str, Any]]:
        """Run a cell; return its messages, each with its type as `kind`."""
        found: list[dict[str, Any]] = []

        def keep(message: dict[str, Any]) -> None:
            found.append({"kind": message["msg_type"], **message["content"]})

        self._client.execute_interactive(code, timeout=SECONDS, output_hook=keep, allow_stdin=False)
        return [each for each in found if each["kind"] not in ("status", "execute_input")]

    def stop_when_there_is(self, path: Path, pattern: str) -> None:
        """Press the stop button once a file is there."""
        until = time.monotonic() + SECONDS

        def watch() -> None:
            while time.monotonic() < until and not any(path.glob(pattern)):
                time.sleep(0.01)
            self._manager.interrupt_kernel()

        threading.Thread(target=watch, daemon=True).start()

    def end(self) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[tuple[Kernel, Path]]:
    folder = tmp_path_factory.mktemp("notebook")
    make_sweep(folder, {"grid.seeds": [0, 1, 2, 3]}, model=tiny_model)
    started = Kernel(folder)
    yield started, folder
    started.end()


def test_a_notebook_runs_a_sweep_is_stopped_and_goes_on(kernel: tuple[Kernel, Path]):
    cell, folder = kernel
    cell.stop_when_there_is(folder / "results/artifacts", "capture/*.json")
    stopped = cell.execute("results = ntksweep.run('sweep.yaml')")
    error = next(each for each in stopped if each["kind"] == "error")
    assert error["ename"] == "KeyboardInterrupt"
    assert error["evalue"] == "interrupted; finished stages are kept. Run the same spec again to go on."
    # one output that is replaced, and nothing that a library says
    for shown in (stopped, cell.execute("results = ntksweep.run('sweep.yaml')\nresults")):
        kinds = [each["kind"] for each in shown]
        assert kinds.count("display_data") == 1, shown
        assert set(kinds) <= {"display_data", "update_display_data", "execute_result", "error"}, shown
    progress = [each["data"] for each in shown if each["kind"].endswith("display_data")]
    assert "solve 12/12" in progress[-1]["text/plain"]
    assert progress[-1]["text/html"].count("<progress") == len(progress[-1]["text/plain"].split(","))
    result = next(each["data"] for each in shown if each["kind"] == "execute_result")
    assert "<table>" in result["text/html"]
    assert result["text/plain"].startswith("<ntksweep run of tiny: 24 of 24 cells")


def test_pictures_and_tables_are_shown(kernel: tuple[Kernel, Path]):
    cell, _ = kernel
    cell.execute("results = ntksweep.load('results')")
    (drawn,) = cell.execute("results.plot.lambda_path()")
    assert drawn["data"]["image/png"].startswith("iVBOR")
    assert drawn["data"]["text/plain"].startswith("<ntksweep picture lambda-path")
    (table,) = cell.execute("results.cells")
    assert "layer_set" in table["data"]["text/html"]
    (said,) = cell.execute("ntksweep.run({'name': 'x'})")
    assert said["ename"] == "SpecError"
    assert said["traceback"] == [f"SpecError: {said['evalue']}"]  # one message, as on the command line
    assert "the keys `model`, `task`, `adapter` and `grid` are missing" in said["evalue"]
