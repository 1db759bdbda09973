"""A sweep that was interrupted before its first cell."""

from pathlib import Path

import pytest

from orchestrator import load
from orchestrator.cli.summary import summarize
from tests.orchestrator.sweeps import make_sweep, ntksweep, run_spec


def test_show_and_report_say_that_no_cell_is_finished(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("orchestrator.stages.solve.compute.compute", interrupted)
    path = make_sweep(tmp_path, model=tiny_model)
    with pytest.raises(KeyboardInterrupt):
        run_spec(path)
    folder = tmp_path / "results"
    for command in ("show", "report"):
        answer = ntksweep(command, folder)
        assert (answer.status, answer.output) == (2, "")
        assert "no cell of the sweep is finished yet: `ntksweep status" in answer.errors
    assert not (folder / "report.html").exists()
    assert summarize(load(folder)).layer_sets == []
