"""Sweeps that grow after they were trained: that stays, and only what joined is trained, with its own numbers."""

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pandas.api.types import is_float_dtype

from finetune.training import loop
from orchestrator.plan.index import plan_index
from orchestrator.plan.plan import make_plan
from orchestrator.results.status import status_of
from orchestrator.spec import read_spec
from orchestrator.stages.finetune import runs_of
from orchestrator.store.journal import read_journals
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.survey import surveys
from tests.faults.driving import Command, count_events, workers_of
from tests.faults.journal_proof import prove_nothing_was_computed_twice
from tests.faults.tables import checksums, numbers
from tests.orchestrator.sweeps import make_sweep, ntksweep, plan_spec, run_spec, write_data, write_spec

TRAINING: dict[str, Any] = {
    "learning_rate": 0.05, "epochs": 2, "batch_size": 4, "num_evaluations": 2, "kernel_examples": 4,
}  # fmt: skip
AXES: dict[str, Any] = {
    "grid.lambdas": {"values": [0.01, 0.1, 1.0], "scale": "trace"}, "grid.layer_sets": ["all_layers"],
    "grid.seeds": [0, 1], "grid.learning_rates": [0.05], "adapter.initialization": "random",
}  # fmt: skip
ACROSS = TRAINING | {"stacked_across": ["learning_rates", "seeds"]}


def lambdas(*values: float) -> dict[str, Any]:
    return {"grid.lambdas": {"values": list(values), "scale": "trace"}}


MIDDLE, DROPPED, EXCHANGED = lambdas(0.01, 0.03, 0.1, 1.0), lambdas(0.01, 1.0), lambdas(0.01, 1.0, 5.0)
MORE: dict[str, Any] = {"grid.seeds": [0, 1, 2], "grid.learning_rates": [0.02, 0.05]}


def assert_close(results: Path, expected: Path) -> None:
    """Check that all tables agree with those of a sweep that was run at once, to 1e-10."""
    found, wanted = numbers(results), numbers(expected)
    assert found.keys() == wanted.keys()
    for name, table in wanted.items():
        keys = [key for key in ("cell_id", "layer_set", "seed", "step", "group") if key in table.column_names]
        frames = [each.to_pandas().sort_values(keys).reset_index(drop=True) for each in (found[name], table)]
        assert len(frames[0]) == len(frames[1])
        for column in table.column_names:
            left, right = (frame[column] for frame in frames)
            if column == "eigenvalues":
                left, right = (np.concatenate(each.to_list()) for each in (left, right))
            if is_float_dtype(right.dtype):
                np.testing.assert_allclose(left, right, rtol=1e-10, atol=1e-12, err_msg=f"{name}.{column}")
            else:
                assert left.equals(right), (name, column)


def trained_once(results: Path) -> bool:
    events = Counter(each["stage"] for each in read_journals(results / "journal") if each["event"] == "finished")
    return set(events.values()) == {1}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Any:
    """Return the results of a sweep that was run at once, each made once; stacks do not matter to its numbers."""
    made: dict[str, Path] = {}

    def at_once(changes: dict[str, Any]) -> Path:
        key = yaml.safe_dump(changes)
        if key not in made:
            place = tmp_path_factory.mktemp("at-once")
            spec = make_sweep(place, {"finetune": TRAINING} | AXES | changes, model=tiny_model)
            assert not run_spec(spec).report.failures
            made[key] = read_spec(spec).folder
        return made[key]

    return at_once


def run_then_grown(
    folder: Path, model: Path, settings: dict[str, Any], changes: dict[str, Any]
) -> tuple[Path, ResultsFolder, dict[str, Any]]:
    """Run a sweep and change its spec; return the spec, the results folder, and its checksums in between."""
    base = {"finetune": settings} | AXES | {"model.path": str(model)}
    spec = make_sweep(folder, base, model=model)
    run_spec(spec)
    results = ResultsFolder(read_spec(spec).folder)
    before = checksums(results.root)
    write_spec(folder, base | changes)
    return spec, results, before


@pytest.mark.parametrize(
    ("changes", "settings", "new", "cells"),
    [
        (MIDDLE, TRAINING, {"finetune": 4, "compare": 2}, 2),
        (DROPPED, TRAINING, {}, 0),
        (MORE, TRAINING, {"finetune": 8, "compare": 4}, 12),
        (EXCHANGED, ACROSS, {"finetune": 3, "compare": 2}, 2),
        (MORE, ACROSS, {"finetune": 6, "compare": 4}, 12),
    ],
    ids=["middle", "dropped", "seed-and-rate", "exchanged-across", "seed-and-rate-across"],
)
def test_a_sweep_that_grows_trains_what_joined(
    changes: dict[str, Any],
    settings: dict[str, Any],
    new: dict[str, int],
    cells: int,
    tmp_path: Path,
    tiny_model: Path,
    expected: Any,
):
    spec, folder, before = run_then_grown(tmp_path, tiny_model, settings, changes)
    planned = plan_spec(spec)
    ending = run_spec(spec)
    assert not ending.report.failures
    assert ending.plan.plan_id == planned.plan_id == plan_index(folder).plan_id
    stored = folder.existing()
    store = folder.artifacts()
    assert make_plan(stored, surveys(stored, store), store).plan_id == planned.plan_id
    after = checksums(folder.root)
    assert {name: after[name] for name in before} == before
    computed = Counter(name.partition("/")[0] for name in after.keys() - before.keys())
    assert {kind: computed[kind] for kind in ("finetune", "compare") if computed[kind]} == new
    trained = [stage for stage in ending.plan.stages if f"finetune/{stage.stage_id}" in after.keys() - before.keys()]
    runs = [run.parameters for stage in trained for run in runs_of(stage)]
    for model in ("nonlinear", "linearized"):
        assert sum(len(run.cells.lambdas) for run in runs if run.model == model) == cells
    assert trained_once(folder.root)
    assert run_spec(spec).was_finished
    status = status_of(plan_index(folder), folder)
    assert status.cells == status.cells_finished == status.cells_in_tables == ending.plan.n_cells
    assert_close(folder.root, expected(changes))


def test_a_grown_sweep_that_is_killed_goes_on_with_the_same_stages(
    tmp_path: Path, tiny_model: Path, expected: Any, monkeypatch: pytest.MonkeyPatch
):
    spec, folder, before = run_then_grown(tmp_path, tiny_model, ACROSS, MORE)
    planned, batches, steps = plan_spec(spec).plan_id, loop.step_batches, []

    def dying(*arguments: Any) -> Any:
        steps.append(arguments)
        if len(steps) == 20:
            raise KeyboardInterrupt
        return batches(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "step_batches", dying)
        run_spec(spec)
    text = folder.spec_path.read_bytes()
    finished = checksums(folder.root)
    assert len(before) < len(finished)
    assert plan_spec(spec).plan_id == planned
    ending = run_spec(spec)
    assert not ending.report.failures
    assert ending.plan.plan_id == planned
    assert folder.spec_path.read_bytes() == text
    after = checksums(folder.root)
    assert {name: after[name] for name in finished} == finished
    assert trained_once(folder.root)
    assert_close(folder.root, expected(MORE))


@pytest.mark.faults
@pytest.mark.parametrize(("executor", "events"), [("inline", 14), pytest.param("ray", 8, marks=pytest.mark.ray)])
def test_a_grown_sweep_whose_processes_are_killed_trains_what_joined_once(
    executor: str, events: int, tmp_path: Path, tiny_model: Path, expected: Any
):
    spec, folder, before = run_then_grown(tmp_path, tiny_model, ACROSS, MORE)
    planned, begun = plan_spec(spec).plan_id, count_events(folder.root)
    run = Command("run", spec, "--executor", executor, folder=tmp_path)
    assert run.wait_for_events(begun + events)
    if executor == "inline":
        run.kill()
        assert run.wait().status == -signal.SIGKILL
    else:
        worker = next(pid for pid in workers_of(folder.root, run.pid) if pid != os.getpid())
        os.kill(worker, signal.SIGKILL)
        assert run.wait().status == 0
    ending = run_spec(spec)
    assert not ending.report.failures
    assert ending.was_finished == (executor == "ray")
    assert ending.plan.plan_id == planned
    after = checksums(folder.root)
    assert {name: after[name] for name in before} == before
    prove_nothing_was_computed_twice(folder.root)
    assert_close(folder.root, expected(MORE))


def test_lambdas_that_leave_are_in_no_table(tmp_path: Path, tiny_model: Path):
    settings = TRAINING | {"combinations": {"coefficients": [0.25]}, "smoothness": {"radii": [0.1], "examples": 2}}
    tasks = {"films": {"data": "films.parquet"}, "books": {"data": "data.parquet"}}
    own = {
        "finetune": settings,
        "task.data": None,
        "grid.tasks": tasks,
        "grid.seeds": [0],
        "adapter.initialization": None,
    }
    base = AXES | own | {"model.path": str(tiny_model)}
    spec = make_sweep(tmp_path, base, model=tiny_model)
    write_data(tmp_path / "films.parquet", seed=1)
    run_spec(spec)
    folder = read_spec(spec).folder
    before, artifacts = numbers(folder), checksums(folder)
    write_spec(tmp_path, base | DROPPED)
    assert not run_spec(spec).report.failures
    assert checksums(folder) == artifacts
    after = numbers(folder)
    for name in ("cells", "trajectories", "updates", "smoothness", "combinations"):
        rows = before[name].filter([value != 0.1 for value in before[name]["lambda_given"].to_pylist()])
        assert 0 < len(rows) < len(before[name])
        for column in rows.column_names:
            found, kept = after[name][column].to_pandas(), rows[column].to_pandas()
            if name == "cells" and is_float_dtype(kept.dtype):
                # ridge columns: products of all lambdas together, whose last bit depends on them on some processors
                np.testing.assert_allclose(found, kept, rtol=1e-12, err_msg=column)
            else:
                assert str(found.to_list()) == str(kept.to_list()), (name, column)


def test_plan_and_run_say_what_stays(tmp_path: Path, tiny_model: Path):
    base = {"finetune": TRAINING} | AXES | {"model.path": str(tiny_model)}
    spec = make_sweep(tmp_path, base, model=tiny_model)
    run_spec(spec)
    assert "stay in the stacks" not in ntksweep("plan", spec).output
    write_spec(tmp_path, base | MIDDLE)
    said = "6 cells stay in the stacks in which their training was begun; 2 others make stacks of their own"
    assert said in " ".join(ntksweep("plan", spec).output.split())
    answer = ntksweep("run", spec)
    assert said in " ".join((answer.output + answer.errors).split())
    assert "stay in the stacks" not in ntksweep("plan", spec).output
    write_spec(tmp_path, base | DROPPED)
    said = "4 cells stay in the stacks in which their training was begun, with 2 that the grid no longer has, which no "
    assert said + "table shows" in " ".join(ntksweep("plan", spec).output.split())


def test_other_numbers_are_stacked_as_in_a_new_folder(tmp_path: Path, tiny_model: Path):
    base = {"finetune": TRAINING} | AXES | {"model.path": str(tiny_model)}
    spec = make_sweep(tmp_path, base, model=tiny_model)
    run_spec(spec)
    write_spec(tmp_path, base | MIDDLE | {"finetune": TRAINING | {"epochs": 1}})
    answer = ntksweep("run", spec)
    assert answer.status != 0
    assert "finetune.epochs: 2 in the folder, 1 now" in answer.errors
    assert ntksweep("run", spec, "--on-change", "given").status == 0
    folder = ResultsFolder(read_spec(spec).folder)
    assert {len(each.lambdas) for solve in plan_index(folder).solves for each in solve.comparisons} == {4}
    assert "stacked_before" not in folder.spec_path.read_text()
