"""Several tasks, ranks and learning rates in one sweep: the numbers of sweeps written with one of each."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import ChangedError, SpecError
from orchestrator.spec import parse_spec, read_spec
from orchestrator.spec.describe import starting_spec
from orchestrator.sweep.choices import Choice, choices
from orchestrator.sweep.on_change import OnChange
from tests.faults.tables import assert_same_tables, numbers
from tests.orchestrator.sweeps import make_sweep, ntksweep, results_of, run_spec, spec_of, write_data, write_spec

TASKS: dict[str, Any] = {
    "films": {"data": "films.parquet"},
    "ratings": {"data": "data.parquet", "label": "rating", "kind": "regression"},
}
TRAINING = {"learning_rate": 0.05, "epochs": 2, "batch_size": 4, "num_evaluations": 1, "kernel_examples": 2}
SMALL: dict[str, Any] = {"grid.layer_sets": ["all_layers"], "task.data": None, "grid.tasks": TASKS}


def sweep(folder: Path, model: Path, changes: dict[str, Any]) -> Path:
    spec = make_sweep(folder, changes, model=model)
    write_data(folder / "films.parquet", seed=1, classes=3)
    return spec


@pytest.fixture(scope="module")
def two_tasks(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The spec of a finished sweep with two tasks; nobody changes its results."""
    spec = sweep(tmp_path_factory.mktemp("tasks"), tiny_model, SMALL)
    assert not run_spec(spec).report.failures
    return spec


# --- numbers


def test_a_task_among_others_has_the_numbers_that_it_has_alone(two_tasks: Path, tmp_path: Path, tiny_model: Path):
    cells = results_of(two_tasks).cells.to_pandas(["task"])
    assert cells["task"].unique().tolist() == ["films", "ratings"]
    for task, own in TASKS.items():
        alone = sweep(tmp_path / task, tiny_model, {"grid.layer_sets": ["all_layers"]} | in_task(own))
        run_spec(alone)
        expected, found = (numbers(read_spec(spec).folder)["cells"].to_pylist() for spec in (alone, two_tasks))
        rows = [without_name(row) for row in found if row["task"] == task]
        assert rows == [without_name(row) for row in expected]


def in_task(own: dict[str, Any]) -> dict[str, Any]:
    return {f"task.{key}": value for key, value in own.items()}


def without_name(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "task"}


def test_ranks_and_learning_rates_have_the_numbers_that_they_have_alone(tmp_path: Path, tiny_model: Path):
    axes = {"grid.ranks": [1, 2], "grid.learning_rates": [0.01, 0.05], "grid.layer_sets": ["all_layers"]}
    spec = make_sweep(tmp_path / "together", axes | {"finetune": TRAINING}, model=tiny_model)
    ending = run_spec(spec)
    assert not ending.report.failures
    cells = results_of(spec).cells.to_pandas()
    assert cells["cell_id"].is_unique
    assert len(cells) == ending.plan.n_cells == 2 * 2 * 2
    alone = make_sweep(
        tmp_path / "alone",
        {"finetune": TRAINING | {"learning_rate": 0.01}, "adapter.rank": 1, "grid.layer_sets": ["all_layers"]},
        model=tiny_model,
    )
    run_spec(alone)
    expected = results_of(alone).cells.to_pandas()
    chosen = cells[(cells["adapter_rank"] == 1) & (cells["learning_rate"] == 0.01)]
    for column in ("condition_number", "eval_loss", "finetune_eval_loss", "linearized_eval_loss", "finetune_distance"):
        assert chosen[column].tolist() == expected[column].tolist(), column
    # What rests on nothing that is trained is computed and told once for all learning rates.
    assert len(results_of(spec).spectra.to_pandas()) == 2
    assert sum(stage.kind == "solve" for stage in ending.plan.stages) == 2
    correlations = results_of(spec).correlations.to_pandas()
    assert set(correlations["adapter_rank"]) == {1, 2}
    assert set(correlations["learning_rate"]) == {0.01, 0.05}


def test_the_only_choice_of_a_sweep_without_axes_is_none():
    assert choices(spec_of()) == [Choice()]
    assert str(Choice()) == ""
    assert str(Choice("films", 2, 1e-3)) == "films, rank 2, learning rate 0.001"


# --- changes of mind


def test_a_task_joins_a_finished_sweep_and_leaves_it(tmp_path: Path, tiny_model: Path):
    spec = sweep(tmp_path, tiny_model, SMALL | {"grid.tasks": {"films": TASKS["films"]}})
    run_spec(spec)
    spec = write_spec(tmp_path, {"model.path": str(tiny_model)} | SMALL)
    ending = run_spec(spec)
    assert {stage.kind for stage in ending.plan.stages} == {"dataset", "batching", "capture", "gram", "solve"}
    of_ratings = [stage for stage in ending.plan.stages if ending.plan.variant_of[stage.stage_id] == 1]
    assert ending.report.computed == len(of_ratings)
    assert set(results_of(spec).cells.to_pandas()["task"]) == {"films", "ratings"}
    spec = write_spec(tmp_path, {"model.path": str(tiny_model)} | SMALL | {"grid.tasks": {"ratings": TASKS["ratings"]}})
    assert run_spec(spec).report.computed == 0
    assert set(results_of(spec).cells.to_pandas()["task"]) == {"ratings"}


def test_a_single_task_becomes_one_of_several(tmp_path: Path, tiny_model: Path):
    alone = {"grid.layer_sets": ["all_layers"], "model.path": str(tiny_model)} | in_task(TASKS["films"])
    spec = sweep(tmp_path, tiny_model, alone)
    first = run_spec(spec)
    ending = run_spec(write_spec(tmp_path, {"model.path": str(tiny_model)} | SMALL))
    assert 0 < ending.report.computed == len(ending.plan.stages) - len(first.plan.stages)


def test_a_task_that_changes_is_refused_by_name(tmp_path: Path, tiny_model: Path):
    spec = sweep(tmp_path, tiny_model, SMALL)
    run_spec(spec)
    shorter = {"films": TASKS["films"] | {"max_length": 8}, "ratings": TASKS["ratings"]}
    with pytest.raises(ChangedError, match=r"task\.films\.max_length: 16 in the folder, 8 now") as refused:
        run_spec(write_spec(tmp_path, {"model.path": str(tiny_model)} | SMALL | {"grid.tasks": shorter}))
    assert "ratings" not in str(refused.value)
    write_data(tmp_path / "films.parquet", seed=5)
    spec = write_spec(tmp_path, {"model.path": str(tiny_model)} | SMALL)
    with pytest.raises(ChangedError, match=r"data\.films: the files have changed"):
        run_spec(spec)
    with pytest.raises(ChangedError, match=r"the data of films at .*films.parquet has changed since the run began"):
        run_spec(spec, on_change=OnChange.STORED)


def test_an_interrupted_sweep_of_several_tasks_ends_with_the_same_tables(
    two_tasks: Path, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    from orchestrator.stages.solve import compute as solve

    spec = sweep(tmp_path, tiny_model, SMALL)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(solve, "compute", interrupted)
        run_spec(spec)
    assert not run_spec(spec).report.failures
    assert_same_tables(read_spec(spec).folder, numbers(read_spec(two_tasks).folder))


# --- looking


def test_commands_tell_tasks_apart(two_tasks: Path):
    folder = read_spec(two_tasks).folder
    planned = json.loads(ntksweep("plan", two_tasks, "--json").output)
    assert [variant["task"] for variant in planned["variants"]] == ["films", "ratings"]
    assert "2 tasks x 1 layer set" in ntksweep("plan", two_tasks).output.replace("\n", " ")
    status = json.loads(ntksweep("status", folder, "--json").output)
    assert [(each["variant"], each["finished"]) for each in status["variants"]] == [("films", 2), ("ratings", 2)]
    shown = ntksweep("show", folder).output
    assert "films" in shown
    assert "ratings" in shown


def test_selection_asks_for_which_task(two_tasks: Path):
    folder = read_spec(two_tasks).folder
    unnamed = ntksweep("select", folder)
    assert unnamed.status == 2
    assert "give --task films | ratings" in unnamed.errors
    unknown = ntksweep("select", folder, "--task", "books")
    assert "--task books: the grid of the sweep does not name that; it has films, ratings" in unknown.errors
    needless = ntksweep("select", folder, "--task", "films", "--rank", "2")
    assert "--rank 2: the grid of the sweep does not name that; it has one" in needless.errors
    gcv = {}
    for task in TASKS:
        answer = json.loads(ntksweep("select", folder, "--task", task, "--greedy", "1", "--json").output)
        gcv[task] = answer["layer_sets"][0]["value"]
    cells = results_of(two_tasks).cells.to_pandas()
    assert gcv == {task: rows["gcv"].min() for task, rows in cells.groupby("task")}


# --- bad input

BEGIN = """
name: tasks
model: {path: m}
task: {kind: classification, n_eval: 5, TASK}
adapter: {target_modules: [query]}
grid:
  lambdas: {values: [1.0]}
  layer_sets: [all_layers]
  n_train: [5]
  tasks:
    films: {FILMS}
"""


@pytest.mark.parametrize(
    ("task", "films", "message"),
    [
        ("labell: a", "data: f.parquet", "task.labell: unknown key `labell`; did you mean `label`?"),
        ("label: a", "dta: f.parquet", "grid.tasks.films.dta: unknown key `dta`; did you mean `data`?"),
        ("label: a", "text: b", "the key `data` is missing"),
        ("label: a", "data: f.parquet, classes: 1", "grid.tasks.films.classes: "),
    ],
)
def test_a_mistake_in_a_task_is_told_once_and_where_it_is(task: str, films: str, message: str):
    with pytest.raises(SpecError) as refused:
        parse_spec(BEGIN.replace("TASK", task).replace("FILMS", films))
    assert message in str(refused.value)
    assert "(1 fault)" in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid.ranks": [1, 2], "adapter.kind": "none"}, "grid.ranks are ranks of LoRA"),
        ({"grid.learning_rates": [0.1]}, "give the spec a section `finetune`"),
        ({"grid.ranks": [1, 1]}, "grid.ranks names a value twice"),
        ({"grid.tasks": {"a b": {"data": "x"}}}, "the name of a task has letters, digits"),
        ({"grid.tasks": {"x": {"data": "x", "kind": "regression"}}, "kernel.outputs": "margin"}, "task x: .* margin"),
    ],
)
def test_axes_that_do_not_fit_are_refused(changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        spec_of(changes)


def test_a_task_whose_data_cannot_be_read_is_named(tmp_path: Path, tiny_model: Path):
    spec = sweep(tmp_path, tiny_model, SMALL | {"grid.tasks": TASKS | {"books": {"data": "data.parquet", "text": "t"}}})
    with pytest.raises(Exception, match=r"books: .* has no column 't'"):
        run_spec(spec)


def test_the_starting_spec_names_the_axes():
    text = starting_spec("begin")
    assert all(f"# {axis}: " in text for axis in ("tasks", "ranks", "learning_rates"))
