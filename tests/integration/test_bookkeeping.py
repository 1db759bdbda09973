"""Large grids: what planning, recognizing and collecting do grows as the number of cells, no faster.

Time is not measured, for machines are busy: Python counts the calls that it makes, which are the same everywhere.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import orchestrator.identity
from ntk_dist.solvers.tridiagonal import TridiagonalDecomposition
from orchestrator.engine.run import is_finished
from orchestrator.engine.worker.execute import provenance
from orchestrator.plan.estimate import costs, refuse_what_cannot_fit
from orchestrator.plan.index import index_of, keep_plan, plan_index
from orchestrator.plan.plan import Plan, missing_stages
from orchestrator.results.loading import load
from orchestrator.results.status import Status, status_of
from orchestrator.results.tables.write import collect
from orchestrator.stages.solve.columns import SPECTRUM_COLUMNS
from orchestrator.stages.solve.scalars import packed
from orchestrator.store import files
from orchestrator.store.artifacts import layout_of
from orchestrator.store.stage import _inputs_digest
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.survey import keep_surveys
from tests.orchestrator.sweeps import SPEEDS, groups_of, plan_of, survey_of

N_LAMBDAS = 20
GRID = {
    "grid.lambdas": {"logspace": {"start": 1e-6, "stop": 1.0, "count": N_LAMBDAS}},
    "grid.layer_sets": ["each_layer", "prefixes", "suffixes"],
    "grid.n_train": [48],
    "compute.shard_examples": 16,
}
SURVEY = survey_of(groups=groups_of(8, ("query", "value")))


def calls(do: Callable[[], Any]) -> int:
    """Return how many functions are called, Python's own included, while `do` runs."""
    count = 0

    def counting(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counting)
    try:
        do()
    finally:
        sys.setprofile(None)
    return count


def plan_with(seeds: int) -> Plan:
    return plan_of(GRID | {"grid.seeds": list(range(seeds))}, survey=SURVEY)


def made_up(plan: Plan, folder: ResultsFolder) -> None:
    """Publish an artifact for every stage of a plan."""
    store = folder.artifacts()
    keep_surveys(plan.sweep, [plan.variants[0].survey], store)
    sets = {solve.stage.stage_id: len(solve.layer_sets) for solve in plan.solves}
    for stage in plan.stages:
        origin = provenance(stage, 1, 0.01)
        if stage.stage_id not in sets and stage.kind != "dataset":
            store.publish(stage, {}, origin)
            continue
        n_train, n_eval = plan.solves[0].n_train, plan.sweep.spec.task.n_eval
        facts: dict[str, Any] = {}
        arrays: dict[str, np.ndarray] = {
            f"{split}.first_in_train": np.arange(n_train) for split in ("train", "eval")
        } | {f"{split}.labels": np.arange(n) % 2 for split, n in (("train", n_train), ("eval", n_eval))}
        if stage.stage_id in sets:
            n_sets = sets[stage.stage_id]
            facts, arrays = packed({column.name: np.ones(n_sets).tolist() for column in SPECTRUM_COLUMNS})
            arrays |= {"initial": np.ones((2 * n_train, 1)), "eval_initial": np.ones((2 * n_eval, 1))}
            r, rows = np.ones((2 * n_train, 1)), np.ones((2 * n_eval, 2 * n_train))
            kept = TridiagonalDecomposition(np.eye(2 * n_train)).keep(r, [rows])
            arrays |= {f"{name}.{i}": array for i in range(n_sets) for name, array in kept.arrays().items()}
        with store.new_arrays(stage, layout_of(arrays)) as file:
            file.write(arrays)
            store.publish(stage, facts, origin, file)


def status(_: Plan, folder: ResultsFolder) -> Status:
    """Look how a sweep stands, with nothing but its results folder."""
    return status_of(plan_index(folder), folder)


def grows_as_the_grid(work: Callable[[int], int], small: int = 4) -> None:
    work(1)  # what is loaded or remembered once is not counted
    once, twice, four_times = (work(small * factor) for factor in (1, 2, 4))
    assert twice <= 2.1 * once
    assert four_times <= 2.1 * twice


def test_planning_grows_as_the_number_of_seeds() -> None:
    grows_as_the_grid(lambda seeds: calls(lambda: plan_with(seeds)))


def test_planning_grows_as_the_number_of_layer_sets() -> None:
    survey = survey_of(groups=groups_of(12, ("query",)))

    def each(size: int) -> float:
        plans: list[Plan] = []
        grid = GRID | {"grid.layer_sets": [{"subsets": size}], "grid.seeds": [0, 1]}
        count = calls(lambda: plans.append(plan_of(grid, survey=survey)))
        return count / len(plans[0].layer_set_names)

    each(1)
    assert each(6) < 1.1 * each(3)  # 2509 layer sets, beyond those that have a stage of their own; 298


def test_a_list_of_tiles_that_many_layer_sets_share_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _inputs_digest.cache_clear()
    hashed: list[int] = []
    digest = orchestrator.identity.digest
    monkeypatch.setattr("orchestrator.identity.digest", lambda text: (hashed.append(len(text)), digest(text))[1])
    # 32 shards, 528 tiles: 20 kB of identities, which each of 92 layer sets needs.
    grid = GRID | {"grid.layer_sets": [{"subsets": 3}], "grid.n_train": [512]}
    plan = plan_of(grid, survey=SURVEY)
    sum(len(stage.stage_id) for stage in plan.stages)
    assert sum(hashed) / len(plan.stages) < 2_500


def test_more_lambdas_do_not_make_more_stages_and_hardly_more_calls() -> None:
    def planning(count: int) -> int:
        grid = GRID | {"grid.lambdas": {"logspace": {"start": 1e-6, "stop": 1.0, "count": count}}}
        return calls(lambda: plan_of(grid, survey=SURVEY))

    planning(2)
    assert planning(1000) < planning(10) + 50 * 1000


@pytest.mark.parametrize(
    "work",
    [
        lambda plan, folder: missing_stages(plan, folder.artifacts()),
        lambda plan, folder: status_of(index_of(plan), folder),
        lambda plan, folder: costs(plan, folder, SPEEDS),
        refuse_what_cannot_fit,
    ],
    ids=["what is missing", "status", "costs", "what cannot fit"],
)
def test_looking_at_a_sweep_that_has_just_begun_grows_as_the_grid(
    work: Callable[[Plan, ResultsFolder], Any], tmp_path: Path
) -> None:
    def counted(seeds: int) -> int:
        plan = plan_with(seeds)
        return calls(lambda: work(plan, ResultsFolder(tmp_path / "results")))

    grows_as_the_grid(counted)


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Plan, ResultsFolder]]:
    """Finished and collected sweeps by number of seeds; nobody changes them."""
    found = {}
    for seeds in (1, 2, 4, 8):
        plan, folder = plan_with(seeds), ResultsFolder(tmp_path_factory.mktemp("collected"))
        made_up(plan, folder)
        collect(plan, folder)
        folder.write(plan.sweep)
        keep_plan(plan, folder)
        found[seeds] = plan, folder
    return found


@pytest.mark.parametrize(
    "work", [collect, is_finished, status, missing_stages], ids=["collect", "recognize", "status", "what is missing"]
)
def test_looking_at_a_finished_sweep_grows_as_the_grid(
    work: Callable[..., Any], collected: dict[int, tuple[Plan, ResultsFolder]]
) -> None:
    def counted(seeds: int) -> int:
        plan, folder = collected[seeds]
        return calls(lambda: work(plan, folder.artifacts() if work is missing_stages else folder))

    grows_as_the_grid(counted, small=2)


def test_a_finished_sweep_is_recognized_without_reading_its_artifacts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, folder = plan_with(2), ResultsFolder(tmp_path)
    made_up(plan, folder)
    assert not is_finished(plan, folder)
    assert collect(plan, folder) == plan.n_cells
    read: list[str] = []
    opened = files._plainly
    monkeypatch.setattr(
        files, "_plainly", lambda path, how: (read.append(Path(path).parent.name), opened(path, how))[1]
    )
    assert is_finished(plan, folder)
    assert sorted(set(read)) == ["cells", "spectra", "survey", "tables"]


def test_loading_the_cells_reads_one_file(tmp_path: Path) -> None:
    plan, folder = plan_with(3), ResultsFolder(tmp_path)
    made_up(plan, folder)
    collect(plan, folder)
    cells = load(tmp_path).cells
    assert len(cells) == plan.n_cells == len(cells.to_pandas())
    assert len(cells.dataset.files) == 1
