"""The command: what it prints, what scripts read of it, and its exit statuses."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from orchestrator.cli.app import app
from orchestrator.cluster.profiles import read_profile
from orchestrator.engine.executors.inline import InlineExecutor
from orchestrator.errors import ExitCode
from orchestrator.store.journal import read_journals
from orchestrator.version import VERSION
from tests.orchestrator.sweeps import make_sweep, ntksweep, results_of, rewrite_table, write_spec
from tests.root import ROOT

COMMANDS = [
    "init", "schema", "plan", "run", "submit", "resume", "wait", "cancel", "logs", "status", "show", "select", "export",
    "report", "doctor",
]  # fmt: skip


def strict_json(text: str) -> Any:
    """Read JSON as the standard has it, without NaN and Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def folder_of(spec: Path) -> Path:
    return spec.parent / "results"


# --- help


def test_the_commands_are_the_documented_ones():
    assert [command.name for command in app.registered_commands] == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_with_an_example(command: str):
    answer = ntksweep(command, "--help")
    assert answer.status == 0
    assert f"Example: ntksweep {command}" in answer.output


def test_the_help_of_the_whole_lists_commands_and_statuses():
    for arguments in ((), ("--help",)):
        text = " ".join(ntksweep(*arguments).output.split())
        assert all(command in text for command in COMMANDS)
        assert "Example: ntksweep run examples/quickstart.yaml" in text
        for code in ExitCode:
            assert f"{code.value} " in text[text.index("Exit status") :], code


def test_init_writes_a_profile_that_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert "submit SPEC --profile cluster.yaml" in ntksweep("init", "--profile").output
    assert read_profile(tmp_path / "cluster.yaml").time_limit == "4h"
    assert ntksweep("init", "--profile").status == ExitCode.WRONG_INPUT  # it exists


def test_the_version_is_told():
    assert ntksweep("--version").output == f"ntksweep {VERSION}\n"


@pytest.mark.parametrize("arguments", [["rum"], ["plan"], ["plan", "a", "b"], ["run", "x", "--workers", "0"]], ids=str)
def test_wrong_usage_has_the_status_of_wrong_input(arguments: list[str]):
    assert ntksweep(*arguments).status == ExitCode.WRONG_INPUT


def test_the_module_is_the_command_and_says_errors_without_a_traceback(tmp_path: Path):
    ran = subprocess.run(
        [sys.executable, "-m", "orchestrator", "plan", "none.yaml"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert ran.stderr == "error: there is no spec at none.yaml; `ntksweep init none.yaml` writes one to start from\n"


# --- init, plan


def test_init_writes_a_spec_that_plan_explains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    answer = ntksweep("init", "my-sweep.yaml")
    assert answer.status == 0
    assert answer.output == (
        "my-sweep.yaml is a spec to start from, and editors complete it by ntksweep.schema.json; then: ntksweep plan "
        "my-sweep.yaml\n"
    )
    assert (tmp_path / "ntksweep.schema.json").read_text() == ntksweep("schema").output
    assert yaml.safe_load((tmp_path / "my-sweep.yaml").read_text())["name"] == "my-sweep"
    planned = ntksweep("plan", "my-sweep.yaml")
    assert planned.status == 2
    assert "there is nothing at" in planned.errors
    assert "paths start from the spec's folder" in planned.errors


@pytest.mark.parametrize(("file", "name"), [("my sweep.yaml", "my-sweep"), ("größe.yaml", "gr-e"), ("ü.yaml", "sweep")])
def test_init_makes_a_name_of_any_file_name(tmp_path: Path, file: str, name: str):
    assert ntksweep("init", tmp_path / file).status == 0
    assert yaml.safe_load((tmp_path / file).read_text())["name"] == name


def test_init_replaces_a_file_only_if_told(tmp_path: Path):
    path = tmp_path / "sweep.yaml"
    path.write_text("precious")
    answer = ntksweep("init", path)
    assert answer.status == 2
    assert "exists; name another file, or replace it with --force" in answer.errors
    assert path.read_text() == "precious"
    assert ntksweep("init", path, "--force").status == 0
    assert path.read_text() != "precious"


def test_plan_tells_cells_stages_and_cost_and_leaves_nothing(tmp_path: Path, tiny_model: Path):
    spec = make_sweep(tmp_path, model=tiny_model)
    answer = ntksweep("plan", spec)
    assert answer.status == 0
    assert "6 cells = 3 layer sets x 2 lambdas x 1 seeds x 1 training-set sizes" in answer.output
    assert "4 groups have structurally zero parts, which are skipped" in " ".join(answer.output.split())
    for kind in ("dataset", "batching", "capture", "gram", "solve"):
        assert kind in answer.output
    assert f"results: {tmp_path / 'results'}" in answer.output
    assert not (tmp_path / "results").exists()


def test_the_json_of_plan_has_what_the_table_has(tmp_path: Path, tiny_model: Path):
    facts = strict_json(ntksweep("plan", make_sweep(tmp_path, model=tiny_model), "--json").output)
    assert facts["cells"] == 6
    assert [layer_set["name"] for layer_set in facts["layer_sets"]] == ["layers:0", "layers:1", "layers:0-1"]
    assert [group["name"] for group in facts["groups"]] == ["0.query", "0.value", "1.query", "1.value", "head"]
    assert {stage["kind"]: stage["missing"] for stage in facts["stages"]} == {
        "dataset": 1, "batching": 1, "capture": 5, "gram": 12, "solve": 3,
    }  # fmt: skip
    assert facts["workers"] == 1
    assert facts["folder"] == str(tmp_path / "results")


# --- run


def test_run_ends_with_the_best_lambdas_and_where_the_results_are(tmp_path: Path, tiny_model: Path):
    answer = ntksweep("run", make_sweep(tmp_path, model=tiny_model))
    assert answer.status == 0
    for name in ("layers:0", "layers:1", "layers:0-1"):
        assert name in answer.output
    assert "majority baseline: 0." in answer.output
    assert f"6 of 6 cells in {tmp_path / 'results' / 'tables'}/cells" in answer.output
    assert "finished already" not in answer.output


def test_run_on_a_finished_sweep_says_so_and_computes_nothing(finished: Path, monkeypatch: pytest.MonkeyPatch):
    before = list(read_journals(folder_of(finished) / "journal"))

    def never(*_: object) -> None:
        raise AssertionError("a finished sweep computes nothing")

    monkeypatch.setattr(InlineExecutor, "__init__", never)
    answer = ntksweep("run", finished)
    assert answer.status == 0
    assert "the sweep was finished already; nothing to do" in answer.output
    assert "12 of 12 cells" in answer.output
    facts = strict_json(ntksweep("run", finished, "--json").output)
    assert (facts["cells"], facts["cells_in_tables"], facts["computed"]) == (12, 12, 0)
    assert list(read_journals(folder_of(finished) / "journal")) == before


def test_the_json_of_run_counts_what_was_computed(tmp_path: Path, tiny_model: Path):
    answer = ntksweep("run", make_sweep(tmp_path, model=tiny_model), "--json")
    facts = strict_json(answer.output)
    assert facts == {
        "cells": 6, "cells_in_tables": 6, "computed": 22, "blocked": 0, "failures": [],
        "folder": str(tmp_path / "results"),
    }  # fmt: skip


def test_run_takes_executor_and_workers_from_the_command(tmp_path: Path, tiny_model: Path):
    spec = make_sweep(tmp_path, {"compute.executor": "ray", "compute.workers": 3}, model=tiny_model)
    assert ntksweep("run", spec, "--executor", "inline", "--workers", "1").status == 0
    answer = ntksweep("run", spec, "--executor", "slurm")
    assert answer.status == 2
    assert "there is no executor `slurm`; give ray or inline" in answer.errors


def test_run_asks_which_side_to_keep_and_takes_it(tmp_path: Path, tiny_model: Path):
    spec = make_sweep(tmp_path, model=tiny_model)
    assert ntksweep("run", spec).status == 0
    write_spec(tmp_path, {"model.path": str(tiny_model), "adapter.rank": 1})
    refused = ntksweep("run", spec)
    assert refused.status == 2
    assert "adapter.rank: 2 in the folder, 1 now" in refused.errors
    stored = ntksweep("run", spec, "--on-change", "stored")
    assert "finished already" in stored.output
    given = ntksweep("run", spec, "--on-change", "given")
    assert given.status == 0
    assert results_of(spec).cells.to_pandas()["adapter_rank"].unique().tolist() == [1]


def test_an_interrupted_run_has_its_own_status_and_goes_on(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    spec = make_sweep(tmp_path, model=tiny_model)
    outcome = InlineExecutor.next_outcome
    calls = iter(range(100))

    def interrupted(self: InlineExecutor, timeout: float | None) -> Any:
        if next(calls) == 8:
            raise KeyboardInterrupt
        return outcome(self, timeout)

    with monkeypatch.context() as patch:
        patch.setattr(InlineExecutor, "next_outcome", interrupted)
        answer = ntksweep("run", spec)
    assert answer.status == 130
    assert "interrupted; what is finished is kept. Run the same command again to go on." in answer.errors
    unfinished = ntksweep("status", tmp_path / "results", "--json")
    assert unfinished.status == ExitCode.UNFINISHED
    assert sum(kind["finished"] for kind in strict_json(unfinished.output)["kinds"]) == 8
    assert strict_json(ntksweep("run", spec, "--json").output)["computed"] == 22 - 8
    assert ntksweep("status", tmp_path / "results").status == 0


def test_failed_stages_are_told_and_run_again_when_mended(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    spec = make_sweep(tmp_path, model=tiny_model)

    def broken(*_: object) -> None:
        raise RuntimeError("a solver with a bug")

    with monkeypatch.context() as patch:
        patch.setattr("orchestrator.stages.solve.compute.compute", broken)
        answer = ntksweep("run", spec)
        facts = strict_json(ntksweep("run", spec, "--json").output)
    assert answer.status == ExitCode.FAILED_STAGES
    assert "failed (code): solve" in answer.output
    assert "a solver with a bug" in answer.output
    assert "3 stages failed and 0 wait for them; when the cause is corrected, run the same command again" in " ".join(
        answer.output.split()
    )
    assert [failure["failure"] for failure in facts["failures"]] == ["code"] * 3
    status = ntksweep("status", spec)
    assert status.status == ExitCode.FAILED_STAGES
    assert "a solver with a bug" in status.output
    assert ntksweep("run", spec).status == 0
    assert ntksweep("status", spec).status == 0


# --- status


def test_the_status_of_a_finished_sweep(finished: Path):
    for target in (finished, folder_of(finished)):
        answer = ntksweep("status", target, "--verify")
        assert answer.status == 0
        assert "12 of 12 cells finished, 12 in the tables" in answer.output
        assert "every artifact and table matches its checksum" in answer.output


def test_the_json_of_status_adds_up(finished: Path):
    facts = strict_json(ntksweep("status", finished, "--json").output)
    assert facts["complete"] is True
    assert (facts["cells"], facts["cells_finished"], facts["cells_in_tables"]) == (12, 12, 12)
    for kind in facts["kinds"]:
        assert kind["planned"] == kind["finished"] + kind["running"] + kind["failed"] + kind["missing"]
    assert facts["failures"] == facts["damaged"] == []


@pytest.mark.parametrize("command", ["status", "show"])
def test_looking_where_nothing_is_says_how_to_begin(command: str, tmp_path: Path):
    answer = ntksweep(command, tmp_path / "none")
    assert answer.status == 2
    assert "there are no results at" in answer.errors
    assert "`ntksweep run SPEC` makes them" in answer.errors


# --- show


def test_show_has_one_line_a_layer_set(finished: Path):
    answer = ntksweep("show", folder_of(finished))
    assert answer.status == 0
    assert "mean over 2 seeds" in answer.output
    facts = strict_json(ntksweep("show", finished, "--json").output)
    assert [s["layer_set"] for s in facts["layer_sets"]] == ["layers:0", "layers:1", "layers:0-1"]
    assert facts["metric"] == "eval_accuracy"
    assert facts["n_seeds"] == 2


def test_the_best_lambda_is_the_one_with_the_lowest_mean_loss(finished: Path):
    cells = results_of(finished).cells.to_pandas()
    for shown in strict_json(ntksweep("show", finished, "--json").output)["layer_sets"]:
        of_set = cells[cells["layer_set"] == shown["layer_set"]]
        losses = of_set.groupby("lambda_given")["eval_loss"].mean()
        assert shown["best_lambda"] == losses.idxmin()
        assert shown["eval_loss"] == pytest.approx(losses.min())
        best = of_set[of_set["lambda_given"] == losses.idxmin()]
        assert shown["metric"] == pytest.approx(best["eval_accuracy"].mean())


@pytest.mark.parametrize("sign", [1, -1])
def test_the_loss_decides_whatever_the_accuracy_says(finished: Path, tmp_path: Path, sign: int):
    shutil.copytree(folder_of(finished), tmp_path / "results")
    (part,) = (tmp_path / "results" / "tables" / "cells").iterdir()
    table = pq.read_table(part)
    place = table.column_names.index("eval_accuracy")
    changed = table.set_column(place, table.field(place), pc.multiply(table["eval_loss"], float(sign)))
    rewrite_table(tmp_path / "results", "cells", changed)
    shown = strict_json(ntksweep("show", tmp_path / "results", "--json").output)["layer_sets"]
    asked = strict_json(ntksweep("show", finished, "--json").output)["layer_sets"]
    assert [one["best_lambda"] for one in shown] == [one["best_lambda"] for one in asked]
    assert [one["metric"] for one in shown] == pytest.approx([sign * one["eval_loss"] for one in asked])


def test_show_sorts_and_limits_the_cells_of_a_layer_set(finished: Path):
    arguments = ("show", finished, "--layer-set", "layers:0-1", "--sort", "train_loss")
    rows = strict_json(ntksweep(*arguments, "--json").output)
    assert len(rows) == 4
    assert [row["train_loss"] for row in rows] == sorted(row["train_loss"] for row in rows)
    assert len(strict_json(ntksweep(*arguments, "--limit", "2", "--json").output)) == 2
    assert "lambda_given" in ntksweep(*arguments).output


def test_show_is_json_where_quantities_are_infinite_or_do_not_exist(finished_regression: Path):
    rows = strict_json(ntksweep("show", finished_regression, "--layer-set", "groups:0.query", "--json").output)
    assert {row["condition_number"] for row in rows if row["n_train"] == 24} == {None}
    assert all(row["eval_accuracy"] is None for row in rows)
    strict_json(ntksweep("show", finished_regression, "--json").output)


def test_a_metric_that_does_not_exist_is_null_in_json(tmp_path: Path, tiny_model: Path):
    # one evaluation example has no correlation
    spec = make_sweep(tmp_path, {"task.kind": "regression", "task.label": "rating", "task.n_eval": 1}, model=tiny_model)
    assert ntksweep("run", spec).status == 0
    facts = strict_json(ntksweep("show", spec, "--json").output)
    assert {shown["metric"] for shown in facts["layer_sets"]} == {None}


def test_show_suggests_the_nearest_column_and_lists_layer_sets(finished: Path):
    answer = ntksweep("show", finished, "--layer-set", "layers:0", "--sort", "eval_acuracy")
    assert answer.status == 2
    assert "there is no column `eval_acuracy`; did you mean `eval_accuracy`?" in answer.errors
    answer = ntksweep("show", finished, "--layer-set", "layers:9")
    assert answer.status == 2
    assert "there is no layer set `layers:9`; there are: layers:0, layers:1, layers:0-1" in answer.errors


def test_show_says_that_a_metric_is_none_of_the_task(finished: Path):
    answer = ntksweep("show", finished, "--layer-set", "layers:0", "--sort", "eval_pearson")
    assert answer.status == 2
    assert "no cell of layers:0 has `eval_pearson`: metrics are those of the kind of task" in answer.errors


# --- export


@pytest.mark.parametrize("table", ["cells", "spectra", "predictions"])
def test_parquet_comes_back_as_it_was(finished: Path, tmp_path: Path, table: str):
    path = tmp_path / "deep" / "out.parquet"
    answer = ntksweep("export", finished, "--output", path, "--table", table)
    rows = results_of(finished).table(table).to_arrow()
    assert answer.output == f"{len(rows)} rows in {path}\n"
    assert pq.read_table(path).equals(rows)


@pytest.mark.parametrize("table", ["cells", "spectra", "predictions"])
@pytest.mark.parametrize("sweep", ["finished", "finished_regression"])
def test_json_lines_come_back_as_they_were(request: pytest.FixtureRequest, tmp_path: Path, sweep: str, table: str):
    spec = request.getfixturevalue(sweep)
    path = tmp_path / "out.jsonl"
    assert ntksweep("export", spec, "-o", path, "--table", table).status == 0
    rows = results_of(spec).table(table).to_arrow().to_pylist()
    read = [strict_json(line) for line in path.read_text().splitlines()]
    assert len(read) == len(rows)
    for line, row in zip(read, rows, strict=True):
        assert list(line) == list(row)
        for name, value in row.items():
            if isinstance(value, float):
                assert line[name] == (value if abs(value) != float("inf") else None), name
            elif name != "finished":
                assert line[name] == value, name


@pytest.mark.parametrize("table", ["cells", "spectra"])
def test_csv_comes_back_as_it_was(finished: Path, tmp_path: Path, table: str):
    import pyarrow.csv

    path = tmp_path / "out.csv"
    assert ntksweep("export", finished, "-o", path, "--table", table).status == 0
    rows = results_of(finished).table(table).to_arrow()
    read = pyarrow.csv.read_csv(path)
    assert read.column_names == rows.column_names
    for name in rows.column_names:
        before, after = rows[name].to_pylist(), read[name].to_pylist()
        if name in ("eigenvalues", "groups"):
            after = [json.loads(text) for text in after]
        if name != "finished":
            assert after == before, name


def test_the_format_may_be_named_and_must_be_known(finished: Path, tmp_path: Path):
    assert ntksweep("export", finished, "-o", tmp_path / "out.txt", "--format", "csv").status == 0
    assert (tmp_path / "out.txt").read_text().startswith('"cell_id","sweep"')
    answer = ntksweep("export", finished, "-o", tmp_path / "out.xlsx")
    assert answer.status == 2
    assert "the format cannot be told from `out.xlsx`; end it in .csv, .jsonl or .parquet, or give --format" in (
        answer.errors
    )
    assert ntksweep("export", finished, "-o", tmp_path / "out", "--format", "xlsx").status == 2


def test_a_table_that_does_not_exist_is_told(finished: Path, tmp_path: Path, tiny_model: Path):
    answer = ntksweep("export", finished, "-o", tmp_path / "out.csv", "--table", "cell")
    assert answer.status == 2
    assert "there is no table `cell`; tables: cells, spectra, predictions" in answer.errors
    plain = make_sweep(tmp_path / "plain", model=tiny_model)
    assert ntksweep("run", plain).status == 0
    answer = ntksweep("export", plain, "-o", tmp_path / "out.csv", "--table", "predictions")
    assert answer.status == 2
    assert "set results.predictions: true and run" in answer.errors


# --- doctor


def test_the_json_of_doctor_has_every_check(tmp_path: Path):
    checks = strict_json(ntksweep("doctor", "--folder", tmp_path, "--json").output)
    assert {"feature", "name", "ok", "required", "found", "advice"} == set(checks[0])
    assert {"torch", "ray", "processors", "polars"} <= {check["name"] for check in checks}
