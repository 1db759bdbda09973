"""The table of correlations: which rows it has, of which cells, and that they are what scipy makes of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.errors import ResultsError
from orchestrator.results.loading import load
from orchestrator.results.tables.cells import CELLS
from orchestrator.results.tables.contribution_to_all import COLUMNS, CONTRIBUTION, contribution_to_all
from orchestrator.results.tables.correlations import CELL_COLUMNS, ON_LOG_SCALE, OUTCOMES, correlations_of
from orchestrator.results.tables.manifest import read_manifest
from orchestrator.results.tables.schema import SCHEMA_VERSION, TABLES, arrow_schema
from orchestrator.results.tables.statistics import COEFFICIENTS
from tests.orchestrator.results.by_scipy import by_scipy
from tests.orchestrator.sweeps import make_sweep, ntksweep, results_of, run_spec

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

OF_CELLS = [name for name in ON_LOG_SCALE if name != CONTRIBUTION]
ENDS = [f"{name}{end}" for name in COEFFICIENTS for end in ("", "_low", "_high", "_interval_error")]


Row = dict[str, Any]


def made_up(n_layer_sets: int = 6, n_seeds: int = 2, task_kind: str = "classification") -> list[Row]:
    """Rows of `cells` with everything that the table reads: one training-set size, two lambdas."""
    draw = np.random.default_rng(6)
    unknown = ("pearson", "spearman") if task_kind == "classification" else ("accuracy", "mcc", "f1")
    return [
        {name: float(draw.lognormal()) for name in (*ON_LOG_SCALE, *OUTCOMES)}
        | {f"finetune_eval_{metric}": None for metric in unknown}
        | {
            "cell_id": f"{seed} {layer} {strength}", "sweep": "made up", "model": "m", "task": "t", "n_train": 10,
            "lambda_scale": "trace",
            "lambda_given": strength, "seed": seed, "layer_set": f"layers:{layer}", "n_parameters": 10 + layer // 2,
            "finetune_status": "finished", "linearized_status": "stopped early",
            "difference_eval_relative": None,  # unknown: all layer sets alone are a regime
            "majority_accuracy": 0.5 + 0.1 * seed if task_kind == "classification" else None,
        }
        for seed in range(n_seeds) for layer in range(n_layer_sets) for strength in (0.1, 1.0)
    ]  # fmt: skip


def table_of(rows: list[Row]) -> pa.RecordBatch:
    fields = {field.name: field for field in arrow_schema(CELLS)}
    return correlations_of(pa.Table.from_pylist(rows, schema=pa.schema([fields[name] for name in CELL_COLUMNS])))


def of(rows: list[Row], **wanted: Any) -> list[Row]:
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def test_a_classification_has_its_metrics_a_regression_its_own_and_no_majority():
    losses = ["finetune_eval_loss", "finetune_train_loss"]
    for kind, metrics in (("classification", ["accuracy", "mcc", "f1"]), ("regression", ["pearson", "spearman"])):
        found = table_of(made_up(task_kind=kind))
        assert found["outcome"].unique().to_pylist() == [*losses, *(f"finetune_eval_{metric}" for metric in metrics)]
        assert found["quantity"].unique().to_pylist() == OF_CELLS
        assert len(found) == 2 * len(OF_CELLS) * (2 + len(metrics))
        majority = set(found["majority_accuracy"].to_pylist())
        assert majority == ({0.55} if kind == "classification" else {None})


def test_a_quantity_that_no_cell_has_has_no_rows():
    rows = [row | {"leave_one_out_loss": None} for row in made_up()]
    assert set(OF_CELLS) - set(table_of(rows)["quantity"].to_pylist()) == {"leave_one_out_loss"}


def test_the_same_bits_whatever_the_order_of_the_cells_and_whatever_else_is_in_the_grid():
    rows = made_up()
    found = table_of(rows)
    assert found.equals(table_of(rows))
    assert found.equals(table_of([rows[i] for i in np.random.default_rng(7).permutation(len(rows))]))
    one_lambda = table_of(of(rows, lambda_given=1.0))
    assert one_lambda.to_pylist() == of(found.to_pylist(), lambda_given=1.0)


@pytest.mark.parametrize("status", ["diverged", None])
def test_a_layer_set_that_diverged_or_is_unfinished_in_one_seed_is_left_out_of_that_lambda(status: str | None):
    rows = made_up()
    for row in of(rows, seed=1, layer_set="layers:2", lambda_given=1.0):
        row |= {"finetune_status": status, "finetune_eval_loss": 1e9}
    found = table_of(rows).to_pylist()
    without = table_of([row for row in rows if row["layer_set"] != "layers:2"]).to_pylist()
    assert of(found, lambda_given=1.0) == of(without, lambda_given=1.0)
    assert {row["n_layer_sets"] for row in of(found, lambda_given=1.0)} == {5}
    assert {row["n_seeds"] for row in found} == {2}
    assert of(found, lambda_given=0.1) == of(table_of(made_up()).to_pylist(), lambda_given=0.1)


def test_a_linearization_that_diverged_takes_its_own_loss_alone():
    rows = made_up()
    rows[0]["linearized_status"] = "diverged"
    before, after = (table_of(each).to_pylist() for each in (made_up(), rows))
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    assert {(row["quantity"], row["lambda_given"]) for row in changed} == {("linearized_eval_loss", 0.1)}
    assert {row["n_layer_sets"] for row in changed} == {5}


def test_layer_sets_are_correlated_within_their_regime():
    rows = made_up(9)
    for row in rows:
        layer, linear = int(row["layer_set"][-1]), row["lambda_given"] == 1.0 or row["layer_set"] < "layers:4"
        # Two seeds whose geometric mean is 0.1 or more than that, whatever a single one says.
        row["difference_eval_relative"] = (0.01, 1.0)[row["seed"]] if linear else (0.02, 1.0)[row["seed"]]
        row["trace"], row["finetune_eval_loss"] = np.exp(layer), layer if linear else -layer
    table = [row for row in table_of(rows).to_pylist() if row["quantity"] == "trace"]
    of_loss = of(table, outcome="finetune_eval_loss")
    found = {(row["lambda_given"], row["regime"]): (row["n_layer_sets"], row["spearman"]) for row in of_loss}
    assert set(found) == {(0.1, "all"), (0.1, "linear"), (0.1, "nonlinear"), (1.0, "all"), (1.0, "linear")}
    assert found[(0.1, "linear")] == (4, pytest.approx(1))
    assert found[(0.1, "nonlinear")] == (5, pytest.approx(-1))
    assert found[(1.0, "linear")] == found[(1.0, "all")] == (9, pytest.approx(1))
    assert found[(0.1, "all")][1] < 0.5
    alone = table_of([row for row in rows if row["layer_set"] < "layers:4"]).to_pylist()
    for row in of(table, lambda_given=0.1, regime="linear"):
        assert row | {"regime": "all"} in alone


@pytest.mark.parametrize("value", [None, np.nan, np.inf, 0.0, -1.0])
def test_a_number_that_does_not_exist_leaves_its_layer_set_out_of_its_own_pairs_alone(value: float | None):
    rows = made_up()
    rows[0]["trace"] = value  # on a log scale, where 0 and less do not exist either
    rows[0]["finetune_eval_mcc"] = np.nan
    found = of(table_of(rows).to_pylist(), lambda_given=0.1)
    for row in found:
        missing = row["quantity"] == "trace" or row["outcome"] == "finetune_eval_mcc"
        assert row["n_layer_sets"] == (5 if missing else 6)
        assert (row["pearson"], row["pearson_low"]) != (None, None)


@pytest.mark.parametrize(("n_layer_sets", "exist"), [(1, 0), (2, 0), (3, 12), (4, 16)])
def test_too_few_layer_sets_have_no_coefficients(n_layer_sets: int, exist: int):
    rows = table_of(made_up(n_layer_sets)).to_pylist()
    found = [sum(row[name] is not None for name in ENDS) for row in of(rows, quantity="gcv")]
    assert found == [exist] * len(found)
    assert {row["n_layer_sets"] for row in rows} == {n_layer_sets}


def test_what_is_constant_has_no_correlation():
    rows = made_up()
    for row in rows:
        row |= {"label_alignment": 0.3, "finetune_eval_accuracy": 0.1 + 0.2 * row["seed"]}
    for row in table_of(rows).to_pylist():
        constant = row["quantity"] == "label_alignment" or row["outcome"] == "finetune_eval_accuracy"
        assert (row["kendall"] is None) == constant
        assert not constant or all(row[name] is None for name in ENDS)


def test_what_is_constant_on_average_has_no_interval_either():
    rows = made_up(n_seeds=3)
    for row in rows:
        row["gcv"] = 10.0 + int(row["layer_set"][-1]) * (row["seed"] - 1)
    assert all(row[name] is None for row in of(table_of(rows).to_pylist(), quantity="gcv") for name in ENDS)


def test_given_the_parameters_their_own_number_has_no_partial_correlation():
    for row in of(table_of(made_up()).to_pylist(), quantity="n_parameters"):
        assert row["spearman"] is not None
        assert row["partial_spearman"] is row["partial_spearman_low"] is row["partial_spearman_high"] is None


def test_an_outcome_that_differs_in_one_layer_set_has_a_correlation_or_none_but_no_fault():
    rows = made_up(12)
    for row in rows:
        row["finetune_eval_accuracy"] = 0.5 + 0.1 * (row["layer_set"] == "layers:0")
    for row in of(table_of(rows).to_pylist(), outcome="finetune_eval_accuracy", quantity="gcv"):
        assert row["pearson_low"] <= row["pearson"] <= row["pearson_high"]


def test_nothing_trained_nothing_told():
    rows = made_up()
    for row in rows:
        row["finetune_status"] = "diverged"
    assert len(table_of(rows)) == 0


# --- the table of a sweep


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The spec of a finished sweep of five layer sets and two seeds whose cells were trained; nobody changes it."""
    changes = {
        "finetune": {"learning_rate": 0.05, "epochs": 2, "batch_size": 5, "num_evaluations": 1, "kernel_examples": 0},
        "grid.layer_sets": ["each_layer", "each_target", "all_layers"], "grid.seeds": [0, 1],
        "kernel.eigenvectors": True, "kernel.contributions": True,
    }  # fmt: skip
    path = make_sweep(tmp_path_factory.mktemp("correlations"), changes, model=tiny_model)
    assert not run_spec(path).report.failures
    return path


def carried_of(trained: Path, cells: pd.DataFrame) -> list[float]:
    """Return `CONTRIBUTION` of each cell, block by block, from the largest layer set of its lambda and seed."""
    blocks = results_of(trained).contributions.to_pandas()
    of_all = {
        (row["lambda_given"], row["seed"], *row["groups"]): row["contribution"]
        for row in blocks[blocks["layer_set"] == "layers:0-1"].to_dict("records")
    }
    own = blocks.groupby("cell_id")["groups"].apply(list)
    return [
        sum(of_all[(cell["lambda_given"], cell["seed"], *block)] for block in own[cell["cell_id"]])
        for cell in cells.to_dict("records")
    ]


def test_a_layer_set_with_a_block_that_the_largest_lacks_has_no_contribution_to_it():
    place = {"task": "t", "adapter_rank": None, "learning_rate": 0.1, "n_train": 10, "seed": 0, "lambda_given": 1.0}
    blocks = {"large": {"a": 0.7, "b": 0.1, "c": 0.2}, "part": {"b": 0.5, "c": 0.5}, "apart": {"c": 0.5, "d": 0.5}}
    rows = [
        place | {"cell_id": name, "layer_set": name, "groups": [group], "contribution": share}
        for name, shares in blocks.items()
        for group, share in shares.items()
    ]
    fields = {field.name: field for field in arrow_schema(TABLES["contributions"])}
    table = pa.Table.from_pylist(rows, schema=pa.schema([fields[name] for name in COLUMNS]))
    found = contribution_to_all(table)
    assert found["large"] == pytest.approx(1.0, rel=1e-15)
    assert found["part"] == pytest.approx(0.3, rel=1e-15)
    assert np.isnan(found["apart"])


def test_the_table_of_a_sweep_is_what_pandas_and_scipy_make_of_its_cells(trained: Path):
    cells, rows = results_of(trained).cells.to_pandas(), results_of(trained).correlations.to_arrow().to_pylist()
    rows = [row for row in rows if row["regime"] == "all"]
    assert len(rows) == 2 * len(ON_LOG_SCALE) * 5
    cells[CONTRIBUTION] = carried_of(trained, cells)
    for name, on_log_scale in ON_LOG_SCALE.items():
        cells[name] = np.log(cells[name]) if on_log_scale else cells[name]
    numbers = [*ON_LOG_SCALE, *OUTCOMES]
    averages: dict[float, pd.DataFrame] = {
        strength: group.groupby("layer_set")[numbers].mean().round(13)
        for strength, group in cells.groupby("lambda_given")
    }
    n_compared = 0
    for row in rows:
        x, y, control = (
            averages[row["lambda_given"]][name] for name in (row["quantity"], row["outcome"], "n_parameters")
        )
        assert row["on_log_scale"] == ON_LOG_SCALE[row["quantity"]]
        for name in COEFFICIENTS:
            expected = by_scipy(name, x.to_numpy(), y.to_numpy(), control.to_numpy())
            found = np.nan if row[name] is None else row[name]
            assert found == pytest.approx(expected, abs=1e-9, nan_ok=True), (row["quantity"], row["outcome"], name)
            n_compared += row[name] is not None
        assert (row["n_layer_sets"], row["n_seeds"], row["n_train"]) == (5, 2, 10)
        assert (row["sweep"], row["task"], row["lambda_scale"]) == ("tiny", "data.parquet", "trace")
        assert row["majority_accuracy"] == pytest.approx(cells.groupby("seed")["majority_accuracy"].first().mean())
    assert n_compared > len(rows)


@pytest.mark.parametrize("table", ["trajectories", "updates", "correlations"])
def test_files_of_trained_sweeps_carry_their_schema(trained: Path, table: str):
    (path,) = results_of(trained).table(table).path.glob("part-*.parquet")
    schema = pq.read_schema(path)
    assert schema.equals(arrow_schema(TABLES[table]), check_metadata=True)
    assert schema.metadata[b"ntksweep_schema_version"] == str(SCHEMA_VERSION).encode()


def test_the_table_is_loaded_exported_and_missed_by_its_name(trained: Path, finished: Path, tmp_path: Path):
    results = load(trained.parent / "results")
    assert "correlations" in results.names
    n_rows = len(results.correlations)
    assert n_rows >= 130
    manifest = read_manifest(results.folder)
    assert manifest is not None
    assert manifest["tables"]["correlations"]["rows"] == n_rows
    output = tmp_path / "correlations.csv"
    assert ntksweep("export", trained.parent / "results", "--table", "correlations", "-o", output).status == 0
    assert len(pd.read_csv(output)) == n_rows
    with pytest.raises(ResultsError, match="no table `correlations`; give the spec a section `finetune` and run"):
        results_of(finished).correlations  # noqa: B018
