"""Tables that a run writes while it goes on."""

from pathlib import Path

import pytest

from orchestrator.engine import early_tables
from orchestrator.engine.early_tables import EarlyTables
from orchestrator.engine.run import run
from orchestrator.results.loading import load
from orchestrator.results.tables.manifest import read_manifest
from orchestrator.spec import read_spec
from orchestrator.sweep.folder import ResultsFolder
from tests.orchestrator.stages.trained_sweeps import TRAINING
from tests.orchestrator.sweeps import Quiet, make_sweep, ntksweep, plan_of


class Looking(Quiet):
    """Reads the tables whenever a stage is finished."""

    def __init__(self, folder: ResultsFolder) -> None:
        super().__init__()
        self.folder = folder
        self.seen: list[tuple[int, int, bool]] = []
        self.shown = ""

    def advance(self, kind: str) -> None:
        manifest = read_manifest(self.folder)
        if manifest is not None:
            rows = len(load(self.folder.root).cells)
            self.seen.append((manifest["cells"], rows, manifest["complete"]))
            self.shown = self.shown or ntksweep("show", self.folder.root).output


def test_a_run_writes_tables_as_soon_as_something_fills_them(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(early_tables, "SHARE", 1e9)
    finetune = {"finetune": TRAINING, "grid.layer_sets": ["each_layer"], "grid.lambdas": {"values": [0.1, 1.0]}}
    spec = make_sweep(tmp_path, finetune, model=tiny_model)
    looking = Looking(ResultsFolder(tmp_path / "results"))
    ending = run(read_spec(spec), tmp_path, looking)
    assert ending.n_cells == 4
    assert [cells for cells, _, _ in looking.seen] == sorted(cells for cells, _, _ in looking.seen)
    assert {(0, 4), (2, 4)} <= {(cells, rows) for cells, rows, _ in looking.seen}
    assert not any(complete for _, _, complete in looking.seen)
    assert "Ridge solutions" in looking.shown
    assert "these are the cells so far" in looking.shown
    assert read_manifest(looking.folder)["complete"]  # type: ignore[index]
    assert len(load(looking.folder.root).correlations)


def test_tables_on_the_way_take_a_small_share_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    now, took = [0.0], 3.0
    monkeypatch.setattr(early_tables.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(early_tables, "written_at", lambda _: 0.0)
    written: list[float] = []

    def collect(*_: object) -> int:
        written.append(now[0])
        now[0] += took
        return 1

    monkeypatch.setattr("orchestrator.results.tables.write.collect_early", collect)
    plan = plan_of()
    tables = EarlyTables(plan, ResultsFolder(tmp_path))
    (solve, *_) = plan.solves
    assert not tables.are_due()
    while now[0] < 3600.0:
        tables.finished(solve.stage)
        if tables.are_due():
            tables.write()
            assert not tables.are_due()
        now[0] += 1.0
    assert written[0] == pytest.approx(early_tables.EXPECTED_SECONDS / early_tables.SHARE, abs=1.0)
    assert took * len(written) <= early_tables.SHARE * 3600.0
    assert len(written) > 0.8 * early_tables.SHARE * 3600.0 / took
