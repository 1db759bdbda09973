"""A training set that grows keeps its examples, and what was computed of them."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.engine.run import resolve
from orchestrator.plan.plan import Plan, make_plan
from orchestrator.spec import read_spec
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.survey import surveys
from tests.orchestrator.sweeps import make_sweep, results_of, run_spec, write_spec

GRID = {"grid.seeds": [0, 1], "grid.layer_sets": ["each_layer"], "head.in_kernel": False, "adapter.rank": 8}
KEPT = ("batching", "capture", "gram", "solve")


def grown(spec: Path, n_train: list[int], changes: dict[str, Any], model: Path) -> Path:
    return write_spec(spec.parent, changes | {"model.path": str(model), "grid.n_train": n_train})


def plan_there(spec: Path) -> Plan:
    read = read_spec(spec)
    folder = ResultsFolder(read.folder)
    sweep = resolve(read, spec.parent, folder)
    return make_plan(sweep, surveys(sweep, folder.artifacts()), folder.artifacts())


def files_of(spec: Path) -> dict[str, int]:
    artifacts = read_spec(spec).folder / "artifacts"
    return {str(path.relative_to(artifacts)): path.stat().st_mtime_ns for path in artifacts.rglob("*.json")}


def drawn_rows(spec: Path, n_train: int) -> list[np.ndarray]:
    """Return for each seed the rows of the data that are trained on, and those that are evaluated."""
    plan, store = plan_there(spec), ResultsFolder(read_spec(spec).folder).artifacts()
    stages = [s for s in plan.stages if s.kind == "dataset" and s.parameters.n_train == n_train]
    artifacts = [store.open(*stage.ref) for stage in stages]
    return [np.concatenate([a.array("eval.rows"), a.array("train.rows")]) for a in artifacts]


@pytest.mark.parametrize(("sampling", "rows"), [("random", "stored"), ("balanced", "resident")])
def test_a_larger_set_begins_with_the_smaller_one_and_reuses_all_of_it(
    tmp_path: Path, tiny_model: Path, sampling: str, rows: str
):
    changes = GRID | {"task.sampling": sampling, "compute.rows": rows}
    spec = make_sweep(tmp_path, changes | {"grid.n_train": [6]}, model=tiny_model)
    run_spec(spec)
    before, smaller = files_of(spec), drawn_rows(spec, 6)

    spec = grown(spec, [6, 14], changes, tiny_model)
    run_spec(spec)
    after, larger = files_of(spec), drawn_rows(spec, 14)
    assert len(smaller) == len(larger) == 2
    for few, many in zip(smaller, larger, strict=True):
        assert many[: len(few)].tolist() == few.tolist()
    assert {name: after[name] for name in before} == before
    planned = Counter(stage.kind for stage in plan_there(spec).stages)
    kept = Counter(name.partition("/")[0] for name in before)
    new = Counter(name.partition("/")[0] for name in after.keys() - before.keys())
    # Two training shards (4 + 2) and two of evaluation (4 + 2) were there; 6 to 8, 8 to 12 and 12 to 14 are added.
    assert kept["gram"] == 2 * (3 + 4)
    assert new["gram"] == 2 * (15 - 3 + 10 - 4)
    assert (kept["capture"], new["capture"]) == ((2 * 4, 2 * 3) if rows == "stored" else (0, 0))
    assert all(kept[kind] + new[kind] == planned[kind] for kind in KEPT)

    fresh = make_sweep(tmp_path / "fresh", changes | {"grid.n_train": [6, 14]}, model=tiny_model)
    run_spec(fresh)
    columns = ["seed", "n_train", "layer_set", "lambda_given", "eval_loss", "sigma_max", "train_loss"]
    there, alone = (
        results_of(each).cells.to_pandas()[columns].sort_values(columns[:4]).reset_index(drop=True)
        for each in (spec, fresh)
    )
    assert there[columns[:4]].equals(alone[columns[:4]])
    np.testing.assert_allclose(there[columns[4:]], alone[columns[4:]], rtol=1e-10)


def test_going_back_to_a_set_that_was_there_computes_nothing(tmp_path: Path, tiny_model: Path):
    spec = make_sweep(tmp_path, GRID | {"grid.n_train": [14]}, model=tiny_model)
    run_spec(spec)
    before = files_of(spec)
    for n_train in ([6], [6, 14], [14]):
        spec = grown(spec, n_train, GRID, tiny_model)
        run_spec(spec)
    new = Counter(name.partition("/")[0] for name in files_of(spec).keys() - before.keys())
    assert {name: files_of(spec)[name] for name in before} == before
    assert run_spec(spec).was_finished
    # The set of 6 by itself was drawn anew; the two sizes together took it from the larger one.
    assert new["dataset"] == 2
    assert new["gram"] == 2 * (3 + 4)


def test_training_is_kept_too(tmp_path: Path, tiny_model: Path):
    changes = GRID | {
        "grid.seeds": [0],
        "finetune": {"learning_rate": 0.01, "epochs": 1, "num_evaluations": 1, "kernel_examples": 0},
    }
    spec = make_sweep(tmp_path, changes | {"grid.n_train": [6]}, model=tiny_model)
    run_spec(spec)
    before = files_of(spec)
    assert any(name.startswith("finetune/") for name in before)
    spec = grown(spec, [6, 8], changes, tiny_model)
    assert not run_spec(spec).report.failures
    after = files_of(spec)
    assert {name: after[name] for name in before} == before
    new = Counter(name.partition("/")[0] for name in after.keys() - before.keys())
    assert new["compare"] == Counter(name.partition("/")[0] for name in before)["compare"]
