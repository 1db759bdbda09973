"""The findings of a trained sweep: means, intervals and choices as they follow from the table `cells`."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.results.findings.averages import mean_over
from orchestrator.results.findings.choices import PER_PARAMETER, choices_made
from orchestrator.results.findings.linearity import linearity
from orchestrator.results.findings.regimes import over_tasks, sign_test
from orchestrator.spec import read_spec
from tests.orchestrator.sweeps import make_sweep, ntksweep, results_of, run_spec

TRAINING: dict[str, Any] = {
    "optimizer": "gradient_descent", "learning_rate": 0.05, "epochs": 60, "num_evaluations": 1, "kernel_examples": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The spec of a finished sweep with two seeds and three layer sets; nobody changes its results."""
    grid = {"grid.seeds": [0, 1], "grid.lambdas": {"values": [1.0, 5.0, 25.0], "scale": "trace"}}
    path = make_sweep(tmp_path_factory.mktemp("report"), {"finetune": TRAINING} | grid, model=tiny_model)
    assert not run_spec(path).report.failures
    return path


def test_findings_are_a_page_and_the_tables_that_it_is_made_of(trained: Path, tmp_path: Path):
    folder = read_spec(trained).folder
    answer = ntksweep("findings", folder, "--output", tmp_path / "found")
    assert (answer.status, answer.errors) == (0, "")
    assert answer.output.strip().endswith("README.md has the findings")
    names = {path.name for path in (tmp_path / "found").iterdir()}
    assert names == {
        "README.md", "spec.yaml", "cells.parquet", "correlations.parquet", "linearity.csv", "regimes.csv",
        "choices.csv",
    }  # fmt: skip
    assert pd.read_parquet(tmp_path / "found" / "cells.parquet").shape[0] == 18
    written = pd.read_csv(tmp_path / "found" / "linearity.csv")
    assert written["lambda_given"].tolist() == [1.0, 5.0, 25.0]
    page = (tmp_path / "found" / "README.md").read_text()
    cells = results_of(trained).cells.to_pandas()
    for strength in (1.0, 25.0):
        mean = cells.loc[cells["lambda_given"] == strength, "finetune_eval_accuracy"].mean()
        row = next(line for line in page.splitlines() if line.startswith(f"| {strength:.3g} |"))
        assert f" {mean:.3g} |" in row
    # two seeds and three layer sets: no interval, and nothing in bold
    assert "2 seeds and 3 layer sets: an interval or a standard error from fewer than 5 seeds or 5 layer sets" in page
    assert "**" not in page
    assert "[" not in page.partition("## Does the spectrum")[0]
    again = ntksweep("findings", folder, "--output", tmp_path / "again")
    assert again.status == 0
    for name in names:
        assert (tmp_path / "found" / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_files_that_are_no_findings_are_replaced_only_if_told(trained: Path, tmp_path: Path):
    folder, page = read_spec(trained).folder, tmp_path / "README.md"
    page.write_text("my notes")
    answer = ntksweep("findings", folder, "--output", tmp_path)
    assert "has README.md, not written by `ntksweep findings`; name another folder, or give --force" in answer.errors
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert page.read_text() == "my notes"
    for options in (["--force"], []):
        assert ntksweep("findings", folder, "--output", tmp_path, *options).status == 0
    assert "my notes" not in page.read_text()


def test_means_and_the_rate_are_those_of_the_cells(trained: Path):
    cells = results_of(trained).cells.to_pandas()
    table = linearity(cells)
    before = None
    for _, row in table.iterrows():
        of_lambda = cells[cells["lambda_given"] == row["lambda_given"]]
        error = np.exp(np.log(of_lambda["finetune_linearization_error"]).mean())
        assert row["finetune_linearization_error"] == pytest.approx(error, rel=1e-12)
        assert row["finetune_linearization_error_low"] <= error <= row["finetune_linearization_error_high"]
        assert row["difference_eval_agreement"] == pytest.approx(of_lambda["difference_eval_agreement"].mean())
        assert (row["n_seeds"], row["n_layer_sets"], row["n_diverged"]) == (2, 3, 0)
        if before is None:
            assert np.isnan(row["rate"])
        else:
            assert row["rate"] == pytest.approx(np.log(error / before) / np.log(5))
        before = error


def test_the_error_falls_at_least_as_fast_as_its_bound(trained: Path):
    # The bound b R(theta_0) / lambda falls like 1/lambda; gradient descent comes close enough to the minimum for it.
    assert linearity(results_of(trained).cells.to_pandas())["rate"].iloc[-1] < -1


def test_a_choice_costs_what_its_layer_set_lacks_of_the_best(trained: Path):
    cells = results_of(trained).cells.to_pandas()
    cells[PER_PARAMETER] = np.arange(len(cells)) % 7
    table = choices_made(cells).set_index(["lambda_given", "chosen_by"])
    assert (table["excess_loss"] >= 0).all()
    assert (table["lost_accuracy"] >= 0).all()
    for strength, of_lambda in cells.groupby("lambda_given"):
        best = of_lambda.groupby("seed")["finetune_eval_loss"].min()
        by_gcv = of_lambda.loc[of_lambda.groupby("seed")["gcv"].idxmin()].set_index("seed")["finetune_eval_loss"]
        by_share = of_lambda.loc[of_lambda.groupby("seed")[PER_PARAMETER].idxmax()].set_index("seed")
        highest = of_lambda.groupby("seed")["finetune_eval_accuracy"].max()
        lacks = (highest - by_share["finetune_eval_accuracy"]).mean()
        assert table.loc[(strength, "contribution"), "lost_accuracy"] == pytest.approx(lacks, abs=1e-15)
        every = of_lambda.groupby("seed")["finetune_eval_loss"].mean()
        largest = of_lambda[of_lambda["layer_set"] == "layers:0-1"].set_index("seed")["finetune_eval_loss"]
        last = of_lambda[of_lambda["layer_set"] == "layers:1"].set_index("seed")["finetune_eval_loss"]
        shared = by_share["finetune_eval_loss"]
        for way, losses in (
            ("gcv", by_gcv),
            ("contribution", shared),
            ("random", every),
            ("all", largest),
            ("last", last),
        ):
            assert table.loc[(strength, way), "excess_loss"] == pytest.approx((losses - best).mean()), way


def test_a_cell_that_diverged_is_counted_and_left_out(trained: Path):
    cells = results_of(trained).cells.to_pandas()
    broken = (cells["layer_set"] == "layers:0") & (cells["seed"] == 0) & (cells["lambda_given"] == 1.0)
    cells.loc[broken, "finetune_status"] = "diverged"
    cells.loc[broken, "finetune_distance"] = 1e30
    row = linearity(cells).iloc[0]
    left = cells[(cells["lambda_given"] == 1.0) & (cells["layer_set"] != "layers:0")]
    assert row["n_diverged"] == 1
    assert row["finetune_distance"] == pytest.approx(np.exp(np.log(left["finetune_distance"]).mean()))


def test_a_cell_that_diverged_is_neither_chosen_nor_the_best_to_choose(trained: Path):
    cells = results_of(trained).cells.to_pandas()
    largest = (cells["layer_set"] == "layers:0-1") & (cells["lambda_given"] == 1.0)
    cells.loc[largest, ["finetune_status", "finetune_eval_loss"]] = "diverged", -1e9
    table = choices_made(cells)
    left = choices_made(cells[~largest])
    pd.testing.assert_frame_equal(table, left, check_like=True)


def test_a_lambda_is_in_a_regime_by_its_whole_interval(trained: Path):
    cells = results_of(trained).cells.to_pandas()
    weakest, middle, strongest = sorted(cells["lambda_given"].unique())
    cells["difference_eval_relative"] = cells["lambda_given"].map({weakest: 0.5, middle: 0.05, strongest: 0.01})
    one = (cells["lambda_given"] == middle) & (cells["layer_set"] == "layers:0")
    cells.loc[one, "difference_eval_relative"] = 0.9
    assert linearity(cells)["regime"].tolist() == ["nonlinear", "mixed", "linear"]


def test_the_share_of_cells_whose_error_is_within_its_bound_and_the_seeds_that_beat_the_majority(trained: Path):
    cells = results_of(trained).cells.to_pandas()
    cells["finetune_linearization_bound"] = cells["finetune_linearization_error"]
    cells.loc[(cells["layer_set"] == "layers:0") & (cells["seed"] == 0), "finetune_linearization_bound"] /= 2
    cells["majority_accuracy"] = np.where(cells["seed"] == 0, 1.0, -1.0)
    table = linearity(cells)
    assert table["linearization_bound_held"].tolist() == pytest.approx([5 / 6] * 3)
    assert table["n_seeds_above_majority"].tolist() == [1] * 3


def made_up_correlations() -> pd.DataFrame:
    """Three tasks, two lambdas in each regime; `trace` orders layer sets in the nonlinear one alone."""
    rows = [
        {
            "task": task, "lambda_given": strength, "regime": regime, "outcome": "finetune_eval_loss",
            "quantity": "trace",
            "spearman": -0.9 + position / 100 if strength < 2 else 0.1 * (position - 1) - 0.02 * strength,
            "partial_spearman": None,
        }
        for position, task in enumerate(("a", "b", "c"))
        for strength, of_lambda in ((0.5, "nonlinear"), (1.0, "nonlinear"), (10.0, "linear"), (20.0, "linear"))
        for regime in ("all", of_lambda)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_within_a_regime_every_task_counts_once():
    table = over_tasks(made_up_correlations(), "finetune_eval_loss").set_index("regime")
    nonlinear = table.loc["nonlinear"]
    assert nonlinear["spearman"] == pytest.approx(-0.89)
    assert (nonlinear["spearman_positive"], nonlinear["spearman_tasks"], nonlinear["n_lambdas"]) == (0, 3, 2)
    assert nonlinear["spearman_p"] == pytest.approx(2 * 0.5**3)  # six coefficients, but three tasks
    assert table.loc["linear", "spearman"] == pytest.approx(-0.3)
    assert np.isnan(nonlinear["partial_spearman"])
    assert np.isnan(nonlinear["partial_spearman_p"])


def test_a_sign_test_leaves_out_zeros_and_is_that_of_the_binomial_distribution():
    assert sign_test(np.array([1.0, 2.0, 0.0, -1.0, 3.0])) == pytest.approx(2 * (1 + 4) / 16)
    assert sign_test(np.array([1.0, -1.0])) == 1
    assert np.isnan(sign_test(np.zeros(2)))


def test_there_are_no_findings_where_nothing_was_trained(finished: Path, tmp_path: Path):
    answer = ntksweep("findings", read_spec(finished).folder, "--output", tmp_path / "found")
    assert answer.status == 2
    assert "nothing was trained: give the spec a section `finetune`" in answer.errors
    assert not (tmp_path / "found").exists()


@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 10))
def test_a_mean_lies_in_its_interval_and_a_constant_is_its_own(n_seeds: int, n_sets: int, seed: int):
    values = np.random.default_rng(seed).uniform(0.5, 2, (n_seeds, n_sets))
    for geometric in (False, True):
        mean = mean_over(values, geometric=geometric)
        expected = np.exp(np.log(values).mean()) if geometric else values.mean()
        assert mean.value == pytest.approx(expected)
        assert values.min() - 1e-12 <= mean.low <= mean.high <= values.max() + 1e-12
        constant = mean_over(np.full((n_seeds, n_sets), 3.0), geometric=geometric)
        assert (constant.low, constant.value, constant.high) == pytest.approx((3.0, 3.0, 3.0))


def test_intervals_cover_what_they_say():
    # 12 layer sets and 3 seeds with effects of their own: the mean of all of them is 0.
    draw = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        values = draw.normal(size=(1, 12)) + draw.normal(size=(3, 12))
        mean = mean_over(values)
        held += mean.low <= 0 <= mean.high
    assert 0.85 <= held / 200 <= 1


def test_nothing_complete_has_no_mean():
    assert np.isnan(mean_over(np.array([[np.nan, 1.0], [1.0, np.nan]])).value)
