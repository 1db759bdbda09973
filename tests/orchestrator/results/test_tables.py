"""The tables: documented, versioned, readable by everyone, and equal to what can be recomputed from them."""

import math
import shutil
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from scipy import stats

import orchestrator
from orchestrator.errors import ResultsError
from orchestrator.results.tables.cells import PROVENANCE_COLUMNS
from orchestrator.results.tables.describe import tables_page
from orchestrator.results.tables.schema import ARROW_TYPES, SCHEMA_VERSION, TABLES
from orchestrator.stages.base.cells import cell_ids
from orchestrator.stages.compare.columns import TRAINING_COLUMNS
from orchestrator.stages.solve import planning as solve_plan
from tests.orchestrator.sweeps import make_sweep, results_of, rewrite_table, run_spec
from tests.root import ROOT

SWEEPS = ["finished", "finished_regression"]


@pytest.fixture(params=SWEEPS)
def sweep(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


def cells(spec: Path) -> pd.DataFrame:
    return results_of(spec).cells.to_pandas()


# --- schema


@pytest.mark.parametrize("table", TABLES)
def test_every_column_has_a_meaning_and_a_name_of_its_own(table: str):
    names = [column.name for column in TABLES[table].columns]
    assert len(set(names)) == len(names)
    for column in TABLES[table].columns:
        assert column.meaning, column.name


@pytest.mark.parametrize("table", ["cells", "spectra", "predictions"])
def test_files_carry_meanings_units_and_the_schemas_version(finished: Path, table: str):
    (path,) = results_of(finished).table(table).path.glob("part-*.parquet")
    schema = pq.read_schema(path)
    assert schema.metadata[b"ntksweep_table"] == table.encode()
    assert schema.metadata[b"ntksweep_schema_version"] == str(SCHEMA_VERSION).encode()
    for column, field in zip(TABLES[table].columns, schema, strict=True):
        assert (field.name, field.type) == (column.name, ARROW_TYPES[column.type])
        assert field.metadata[b"meaning"].decode() == column.meaning
        assert field.metadata[b"unit"].decode() == column.unit
        assert field.metadata[b"provenance"] == (b"yes" if column.provenance else b"no")


def test_the_reference_page_covers_every_column():
    page = tables_page()
    for table, columns in ((name, table.columns) for name, table in TABLES.items()):
        section = page.split(f"## `{table}`")[1].split("## `")[0]
        for column in columns:
            assert f"| `{column.name}` | {column.type} |" in section, column.name


def test_the_reference_page_in_the_documentation_is_the_current_one():
    page = ROOT / "docs" / "tables.md"
    assert page.read_text(encoding="utf-8") == tables_page(), "run `python docs/write_reference.py`"


# --- reading


def test_pandas_polars_arrow_and_duckdb_read_the_same(finished: Path):
    results = orchestrator.load(finished.parent / "results")
    for name in results.names:
        table = results.table(name)
        arrow = table.to_arrow()
        assert isinstance(table.to_pandas(), pd.DataFrame)
        assert isinstance(table.to_polars(), pl.DataFrame)
        assert table.to_polars().to_dicts() == arrow.to_pylist()
        assert len(table) == len(table.to_pandas()) == len(arrow)
        found = duckdb.sql(f"select count(*), count(distinct layer_set) from '{table.path}/*.parquet'").fetchall()
        assert found == [(len(arrow), len(pc.unique(arrow["layer_set"])))]
    best = duckdb.sql(f"select min(eval_loss) from '{results.cells.path}/part-*.parquet'").fetchall()
    assert best == [(pc.min(results.cells.to_arrow()["eval_loss"]).as_py(),)]


def test_columns_and_rows_can_be_chosen_before_they_are_read(finished: Path):
    table = results_of(finished).cells
    assert table.to_arrow(["seed", "lambda"]).column_names == ["seed", "lambda"]
    assert list(table.to_pandas(["gcv"]).columns) == ["gcv"]
    assert table.to_polars(["gcv"]).columns == ["gcv"]
    chosen = table.to_arrow(where=pc.field("seed") == 1)
    assert len(chosen) == 6
    assert chosen["seed"].unique().to_pylist() == [1]


def test_results_say_what_they_are(finished: Path):
    results = results_of(finished)
    assert repr(results) == f"<ntksweep results at {finished.parent / 'results'}>"
    assert repr(results.cells) == f"<ntksweep table cells: 12 rows at {finished.parent / 'results/tables/cells'}>"


def test_a_file_of_an_older_version_is_read_with_nulls(finished: Path, tmp_path: Path):
    shutil.copytree(finished.parent / "results", tmp_path / "results")
    path = tmp_path / "results" / "tables" / "cells" / "part-0.parquet"
    rewrite_table(tmp_path / "results", "cells", pq.read_table(path).drop_columns(["gcv"]))
    read = orchestrator.load(tmp_path / "results").cells.to_arrow()
    assert read["gcv"].null_count == len(read) == 12


def test_folders_without_results_are_told(tmp_path: Path, finished: Path):
    with pytest.raises(ResultsError, match="there are no results at"):
        orchestrator.load(tmp_path / "none")
    (tmp_path / "resulte").mkdir()  # nearer, and holds none
    shutil.copytree(finished.parent / "results", tmp_path / "results")
    with pytest.raises(ResultsError, match=rf"there are no results at .*; did you mean {tmp_path / 'results'}\?"):
        orchestrator.load(tmp_path / "resultes")
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ResultsError, match="holds no sweep"):
        orchestrator.load(tmp_path)
    with pytest.raises(ResultsError, match=r"there is no table `cell`; did you mean `cells`\? tables of this"):
        results_of(finished).table("cell")


# --- cells


def test_there_is_one_row_a_cell_in_the_grids_order(sweep: Path):
    made = run_spec(sweep).plan
    expected = [
        (cell, solve.seed, solve.n_train, layer_set.name, strength)
        for solve in made.solves
        for layer_set in solve.layer_sets
        for cell, strength in zip(
            cell_ids(solve, layer_set, made.lambdas, made.sweep.spec.grid.lambdas.scale), made.lambdas, strict=True
        )
    ]
    found = cells(sweep)[["cell_id", "seed", "n_train", "layer_set", "lambda_given"]]
    assert list(found.itertuples(index=False, name=None)) == expected
    assert found["cell_id"].is_unique


def test_what_does_not_exist_is_null_and_what_exists_is_not(finished: Path, finished_regression: Path):
    classification, regression = results_of(finished).cells.to_arrow(), results_of(finished_regression).cells.to_arrow()
    # No Slurm, no GPU, no half precision here, nothing was trained, and every kernel was decomposed.
    never = {"job", "learning_rate", "fallback", "ridge_residual", "row_precision_error", "kernel_precision_error"}
    never |= {column.name for column in TRAINING_COLUMNS}
    of_classes = {f"{when}_{m}" for when in ("train", "eval", "initial_eval") for m in ("accuracy", "mcc", "f1")}
    of_numbers = {f"{when}_{m}" for when in ("train", "eval", "initial_eval") for m in ("pearson", "spearman", "r2")}
    # There the head is out of the kernel.
    of_heads = {"feature_trace_share", "feature_share_train", "feature_share_eval"}
    for table, absent in (
        (classification, never | of_numbers | {"missing_estimates"}),
        (regression, never | of_classes | of_heads | {"majority_accuracy", "leave_one_out_loss"}),
    ):
        empty = {name for name in table.column_names if table[name].null_count == len(table)}
        assert empty - {"git"} == absent
        partly = {name for name in table.column_names if 0 < table[name].null_count < len(table)}
        assert partly == set()
        for name in table.column_names:
            if pa.types.is_floating(table[name].type):
                assert not pc.any(pc.is_nan(table[name])).as_py(), name


def test_a_set_beyond_the_layers_touches_none(tmp_path: Path, tiny_model: Path):
    spec = make_sweep(tmp_path, {"grid.layer_sets": [{"groups": [["head"]]}, "all_layers"]}, model=tiny_model)
    run_spec(spec)
    rows = {row["layer_set"]: row for row in results_of(spec).cells.to_arrow().to_pylist()}
    assert (rows["head"]["n_layers"], rows["head"]["lowest_layer"], rows["head"]["highest_layer"]) == (0, None, None)
    both = rows["layers:0-1"]
    assert (both["n_layers"], both["lowest_layer"], both["highest_layer"]) == (2, 0, 1)


def test_an_adapter_of_whole_weights_has_no_rank_and_no_threshold(tmp_path: Path, tiny_model: Path):
    spec = make_sweep(tmp_path, {"adapter.kind": "none", "grid.layer_sets": ["each_target"]}, model=tiny_model)
    run_spec(spec)
    found = cells(spec)
    assert found[["adapter_rank", "rank_threshold"]].isna().all(axis=None)
    assert found["layer_set"].unique().tolist() == ["target:query", "target:value"]


def test_constants_of_a_sweep_stand_in_every_row(sweep: Path):
    made = run_spec(sweep).plan
    spec = made.sweep.spec
    for row in results_of(sweep).cells.to_arrow().to_pylist():
        assert row["sweep"] == "tiny"
        assert row["model"] == "tiny-bert"
        assert row["task"] == "data.parquet"
        assert row["task_kind"] == spec.task.kind
        assert row["head_in_kernel"] == spec.head.in_kernel
        assert row["n_eval"] == 6
        assert row["dtype"] == "float64"
        assert row["kernel_size"] == row["n_train"] * (2 if spec.task.kind == "classification" else 1)


def test_provenance_says_where_a_cell_comes_from(finished: Path):
    from datetime import UTC, datetime

    rows = cells(finished)
    assert {column.name for column in TABLES["cells"].columns if column.provenance} == {
        c.name for c in PROVENANCE_COLUMNS
    }
    solves = {solve.stage.stage_id for solve in run_spec(finished).plan.solves}
    assert set(rows["stage_id"]) == solves
    assert (rows["attempt"] == 1).all()
    assert (rows["seconds"] > 0).all()
    assert (rows["peak_memory_bytes"] > 10**7).all()
    age = (datetime.now(UTC) - rows["finished"]).dt.total_seconds()
    assert age.between(0, 3600).all()


def evidence_of(sweep: Path, row: dict[str, Any]) -> float:
    """Return the log-density of a cell's residuals from its objective, lambda/2 r'(K + lambda I)^-1 r, and spectrum."""
    spectra = results_of(sweep).table("spectra").to_pandas()
    of_set = spectra
    for key in ("seed", "n_train", "layer_set"):
        of_set = of_set[of_set[key] == row[key]]
    (values,), M, value = of_set["eigenvalues"], row["kernel_size"], row["lambda"]
    determinant = np.log(np.maximum(values, 0) + value).sum() + (M - len(values)) * np.log(value)
    return float(-M / 2 - determinant / 2 + M / 2 * np.log(value * M / (2 * np.pi * 2 * row["objective"])))


def test_columns_keep_what_the_algebra_promises(sweep: Path):
    rows = cells(sweep)
    M = rows["kernel_size"]
    in_units = rows["lambda_given"] * rows["trace"] / M
    assert rows["lambda"].to_numpy() == pytest.approx(in_units.to_numpy(), rel=1e-12)
    assert (rows["parameter_distance"] <= rows["parameter_distance_bound"] * (1 + 1e-12)).all()
    objective = rows["train_loss"] * rows["n_train"] + rows["lambda"] / 2 * rows["parameter_distance"] ** 2
    assert rows["objective"].to_numpy() == pytest.approx(objective.to_numpy(), rel=1e-9)
    assert (rows["objective"] <= rows["initial_train_loss"] * rows["n_train"] * (1 + 1e-12)).all()
    assert (rows["degrees_of_freedom"] < M).all()
    residual = 2 * rows["train_loss"] * rows["n_train"] / M
    gcv = residual / (1 - rows["degrees_of_freedom"] / M) ** 2
    assert rows["gcv"].to_numpy() == pytest.approx(gcv.to_numpy(), rel=1e-9)
    assert rows["log_evidence"].notna().any()
    for row in rows[rows["log_evidence"].notna()].to_dict("records"):
        assert row["log_evidence"] == pytest.approx(evidence_of(sweep, row), rel=1e-9)
    # more regularization: larger training loss, smaller distance
    for _, path in rows.sort_values("lambda").groupby(["seed", "n_train", "layer_set"]):
        assert path["train_loss"].is_monotonic_increasing
        assert path["parameter_distance"].is_monotonic_decreasing


def test_overwhelming_regularization_leaves_the_model_as_it_was(tmp_path: Path, tiny_model: Path):
    spec = make_sweep(tmp_path, {"grid.lambdas": {"values": [1e13]}}, model=tiny_model)
    run_spec(spec)
    rows = cells(spec)
    for split in ("train", "eval"):
        assert rows[f"{split}_loss"].to_numpy() == pytest.approx(rows[f"initial_{split}_loss"].to_numpy(), rel=1e-9)
    assert (rows["eval_accuracy"] == rows["initial_eval_accuracy"]).all()
    assert (rows["parameter_distance"] < 1e-10).all()


def test_layer_sets_that_share_a_stage_give_the_same_rows(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    changes = {"grid.layer_sets": ["each_layer", "each_target", "all_layers"], "results.predictions": True}
    alone, together = (make_sweep(tmp_path / name, changes, model=tiny_model) for name in ("alone", "together"))
    assert len(run_spec(alone).plan.solves) == 5
    monkeypatch.setattr(solve_plan, "MANY_LAYER_SETS", 2)
    assert len(run_spec(together).plan.solves) == 2
    for table in results_of(alone).names:
        kept = [column.name for column in TABLES[table].columns if not column.provenance]
        one, other = (results_of(spec).table(table).to_arrow(kept) for spec in (alone, together))
        assert one.equals(other), table


# --- spectra


def test_spectra_are_what_the_scalars_of_the_cells_say(sweep: Path):
    spectra = results_of(sweep).spectra.to_pandas().set_index(["seed", "n_train", "layer_set"])
    assert spectra.index.is_unique
    for row in results_of(sweep).cells.to_arrow().to_pylist():
        spectrum = spectra.loc[(row["seed"], row["n_train"], row["layer_set"])]
        values = np.array(spectrum["eigenvalues"])
        assert (np.diff(values) <= 0).all()
        assert spectrum["kernel_size"] == row["kernel_size"] >= len(values)
        assert values[0] == pytest.approx(row["sigma_max"], rel=1e-12)
        assert values.sum() == pytest.approx(row["trace"], rel=1e-9)
        if len(values) < row["kernel_size"]:
            assert row["sigma_min"] == 0
            assert math.isinf(row["condition_number"])
            assert not row["condition_number_resolved"]
        else:
            assert values[-1] == pytest.approx(row["sigma_min"], rel=1e-12)
            assert row["condition_number"] == pytest.approx(row["sigma_max"] / row["sigma_min"])
        shares = values[values > 0] / values[values > 0].sum()
        assert row["effective_rank"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-6)
        assert row["degrees_of_freedom"] == pytest.approx((values / (values + row["lambda"])).sum(), rel=1e-9)


def test_spectra_name_the_groups_of_their_set(finished: Path):
    rows = results_of(finished).spectra.to_arrow().to_pylist()
    groups = {row["layer_set"]: row["groups"] for row in rows}
    assert groups["layers:1"] == ["1.query", "1.value", "head"]
    assert groups["layers:0-1"] == ["0.query", "0.value", "1.query", "1.value", "head"]


# --- predictions


def labeled_predictions(spec: Path, label: str) -> pd.DataFrame:
    """Return the predictions beside the label that the data have for their example."""
    labels = pq.read_table(spec.parent / "data.parquet")[label].to_numpy()
    rows = results_of(spec).predictions.to_pandas()
    return rows.assign(label=labels[rows["example"]])


def test_losses_and_accuracy_follow_from_the_predictions(finished: Path):
    rows = labeled_predictions(finished, "label")
    assert len(rows) == 12 * 6 * 2
    rows["target"] = np.where(rows["output"] == rows["label"], 1.0, -1.0)
    columns = cells(finished).set_index("cell_id")
    assert set(rows["cell_id"]) == set(columns.index)
    for cell, of_cell in rows.groupby("cell_id"):
        loss = ((of_cell["prediction"] - of_cell["target"]) ** 2).sum() / (2 * 6)
        assert columns.loc[cell, "eval_loss"] == pytest.approx(loss, rel=1e-12)
        chosen = of_cell.loc[of_cell.groupby("example")["prediction"].idxmax()]
        assert len(chosen) == 6
        assert columns.loc[cell, "eval_accuracy"] == pytest.approx((chosen["output"] == chosen["label"]).mean())
        assert columns.loc[cell, "eval_mcc"] == pytest.approx(_mcc(chosen["label"], chosen["output"]))
        first = of_cell.iloc[0]
        row = columns.loc[cell]
        for name in ("seed", "n_train", "layer_set", "lambda_given", "kernel", "outputs"):
            assert first[name] == row[name]


def _mcc(labels: pd.Series, chosen: pd.Series) -> float:
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, chosen))


def test_losses_and_correlations_follow_from_the_predictions(finished_regression: Path):
    rows = labeled_predictions(finished_regression, "rating")
    columns = cells(finished_regression).set_index("cell_id")
    assert set(rows["output"]) == {0}
    for cell, of_cell in rows.groupby("cell_id"):
        row = columns.loc[cell]
        errors = of_cell["prediction"] - of_cell["label"]
        assert row["eval_loss"] == pytest.approx((errors**2).sum() / (2 * 6), rel=1e-12)
        pearson = stats.pearsonr(of_cell["prediction"], of_cell["label"]).statistic
        assert row["eval_pearson"] == pytest.approx(pearson, rel=1e-9)
        variance = ((of_cell["label"] - of_cell["label"].mean()) ** 2).sum()
        assert row["eval_r2"] == pytest.approx(1 - (errors**2).sum() / variance, rel=1e-9)


def test_every_seed_has_its_own_evaluation_examples_and_every_cell_of_it_the_same(finished: Path):
    rows = results_of(finished).predictions.to_pandas()
    by_seed = {
        seed: {tuple(of_cell["example"]) for _, of_cell in of_seed.groupby("cell_id")}
        for seed, of_seed in rows.groupby("seed")
    }
    assert len(by_seed[0]) == len(by_seed[1]) == 1
    assert by_seed[0] != by_seed[1]


def test_predictions_name_rows_of_the_data_even_where_a_cut_leaves_some_out(tmp_path: Path, tiny_model: Path):
    changes = {
        "task.label": "rating", "task.sign_cut": 1.0, "kernel.outputs": "margin", "results.predictions": True,
    }  # fmt: skip
    spec = make_sweep(tmp_path, changes, model=tiny_model)
    run_spec(spec)
    rows = labeled_predictions(spec, "rating")
    assert (rows["label"].abs() > 1.0).all()
    columns = cells(spec).set_index("cell_id")
    for cell, of_cell in rows.groupby("cell_id"):
        errors = of_cell["prediction"] - np.sign(of_cell["label"])
        assert columns.loc[cell, "eval_loss"] == pytest.approx((errors**2).sum() / (2 * 6), rel=1e-12)
        assert columns.loc[cell, "eval_accuracy"] == pytest.approx(
            (of_cell["prediction"] * of_cell["label"] > 0).mean()
        )
