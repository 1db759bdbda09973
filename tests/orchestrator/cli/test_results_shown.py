"""Answers of status, show and export, for people and for scripts."""

import json
import shutil
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.orchestrator.cli.answers import folder_of, strict_json
from tests.orchestrator.sweeps import make_sweep, ntksweep, results_of, rewrite_table

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
    assert "mean±standard error over 2 seeds" in answer.output
    assert "Ridge solutions: the linearized model, solved exactly; nothing was trained" in answer.output
    assert "2 seeds: an interval or a standard error from fewer than 5 seeds means nothing." in answer.output
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
        best = of_set[of_set["lambda_given"] == losses.idxmin()]
        for name in ("eval_loss", "eval_accuracy", "eval_mcc", "eval_f1"):
            mean, error = best[name].mean(), best[name].std(ddof=1) / 2**0.5
            assert shown[name] == {
                "mean": pytest.approx(mean), "standard_error": pytest.approx(error, abs=1e-12), "seeds": 2,
            }  # fmt: skip
        assert shown["at_edge"] is True  # of two lambdas each is at an edge


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
    assert [one["eval_accuracy"]["mean"] for one in shown] == pytest.approx(
        [sign * one["eval_loss"]["mean"] for one in asked]
    )


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
    assert facts["metric"] == "eval_pearson"
    assert all(shown["eval_pearson"] is None and shown["eval_loss"]["seeds"] == 1 for shown in facts["layer_sets"])
    assert [shown["eval_loss"]["standard_error"] for shown in facts["layer_sets"]] == [None] * 3


def test_a_column_to_sort_by_needs_a_layer_set(finished: Path):
    answer = ntksweep("show", finished, "--sort", "eval_accuracy")
    assert answer.status == 2
    assert "give --layer-set NAME with it" in answer.errors


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
    assert (
        "no cell of layers:0 has `eval_pearson`, which a stage `solve` fills: metrics are those of the kind of task"
        in answer.errors
    )
    answer = ntksweep("show", finished, "--layer-set", "layers:0", "--sort", "finetune_eval_loss")
    assert "has `finetune_eval_loss`, which a stage `compare` fills" in answer.errors


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
    assert "there is no table `cell`; did you mean `cells`? tables of this sweep: cells, " in answer.errors
    plain = make_sweep(tmp_path / "plain", model=tiny_model)
    assert ntksweep("run", plain).status == 0
    answer = ntksweep("export", plain, "-o", tmp_path / "out.csv", "--table", "predictions")
    assert answer.status == 2
    assert "set results.predictions: true and run" in answer.errors
