"""Criteria by which layer sets are chosen before training, and rankings by them."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from orchestrator.errors import ResultsError, SpecError
from orchestrator.results.loading import load
from orchestrator.results.selection.criteria import CRITERIA, criterion_named
from orchestrator.results.selection.ranking import rank
from tests.orchestrator.results.selection.swept import (
    BY_NAME,
    EVERY_SET,
    NAMES,
    best_in_cells,
    layers_named,
    with_cells,
)
from tests.orchestrator.sweeps import ntksweep, results_of, spec_of

pytestmark = pytest.mark.xdist_group("selection")


def test_the_best_value_is_the_smallest_or_the_largest_and_never_nan():
    assert BY_NAME["gcv"].best([3.0, math.nan, 2.0]) == 2.0
    assert BY_NAME["alignment"].best([3.0, math.nan, 2.0]) == 3.0
    assert math.isnan(BY_NAME["gcv"].best([math.nan, math.nan]))


def test_condition_numbers_are_averaged_by_factors_and_other_numbers_by_differences():
    assert BY_NAME["condition_relative"].mean([1.0, 100.0]) == pytest.approx(10.0)
    assert BY_NAME["condition_fixed"].mean([2.0, math.inf]) == math.inf
    assert BY_NAME["effective_rank"].mean([1.0, 100.0]) == 50.5


def test_a_better_value_is_less_bad_and_nan_is_worst():
    small, large = BY_NAME["gcv"], BY_NAME["alignment"]
    assert sorted([math.nan, 2.0, 1.0], key=small.badness)[:2] == [1.0, 2.0]
    assert sorted([math.nan, 1.0, 2.0], key=large.badness)[:2] == [2.0, 1.0]


def test_no_criterion_reads_a_trained_result():
    assert not [criterion for criterion in CRITERIA if criterion.column.startswith(("finetune", "linearized", "diff"))]


def test_an_unknown_criterion_is_told_with_the_nearest():
    with pytest.raises(SpecError, match=r"no criterion `condition_relativ`; did you mean `condition_relative`\?"):
        criterion_named("condition_relativ", spec_of())
    with pytest.raises(SpecError, match="there is no criterion `kapa`; did you mean `kappa`"):
        criterion_named("kapa", spec_of())
    with pytest.raises(SpecError, match="there is no criterion `xyz`; criteria: condition_fixed, condition_relative"):
        criterion_named("xyz", spec_of())


def test_leave_one_out_needs_eigenvectors_of_a_symmetric_kernel():
    with pytest.raises(ResultsError, match=r"needs kernel\.eigenvectors: true: set it .*; take `--by gcv`"):
        criterion_named("leave_one_out", spec_of())
    with pytest.raises(ResultsError, match="asymmetric_sign kernel has no leave-one-out"):
        criterion_named("leave_one_out", spec_of({"kernel.kind": "asymmetric_sign"}))
    assert criterion_named("leave_one_out", spec_of({"kernel.eigenvectors": True})).column == "leave_one_out_loss"


# --- ranking


def test_a_ranking_has_the_values_that_one_computes_by_hand(swept: Path, tmp_path: Path):
    def change(cells: pd.DataFrame) -> pd.DataFrame:
        place = (cells["seed"], cells["lambda_given"])
        by_hand = {(0, 0.01): 5.0, (0, 1.0): 2.0, (1, 0.01): 4.0, (1, 1.0): 7.0}
        cells["gcv"] = [by_hand[key] for key in zip(*place, strict=True)]
        cells["condition_number_fixed_sigma"] = np.where(cells["seed"] == 0, 2.0, 8.0)
        special = cells["layer_set"] == "layers:2"
        cells.loc[special, "gcv"] = cells.loc[special, "gcv"] / 4
        cells.loc[special, "condition_number_fixed_sigma"] *= 3
        cells.loc[cells["layer_set"] == "layers:3", "gcv"] = math.nan
        return cells

    results = load(with_cells(swept, tmp_path, change))
    ranking = rank(results, BY_NAME["gcv"])
    # each seed takes its own best lambda: (2 + 4)/2
    best, *middle, worst = ranking.layer_sets
    assert (best.layer_set, best.value, best.lowest, best.highest) == ("layers:2", 0.75, 0.5, 1.0)
    assert [each.layer_set for each in middle[:3]] == ["layers:0", "layers:1", "layers:0-1"]  # equally good: grid order
    assert {(each.value, each.lowest, each.highest) for each in middle} == {(3.0, 2.0, 4.0)}
    assert worst.layer_set == "layers:3"
    assert math.isnan(worst.value)
    by_condition = rank(results, BY_NAME["condition_fixed"])
    assert by_condition.layer_sets[-1].layer_set == "layers:2"
    assert by_condition.layer_sets[-1].value == pytest.approx(12.0)
    assert by_condition.layer_sets[0].value == pytest.approx(4.0)


@pytest.mark.parametrize("name", NAMES)
def test_a_ranking_holds_every_layer_set_the_best_first(swept: Path, name: str):
    criterion = BY_NAME[name]
    ranking = rank(results_of(swept), criterion)
    cells = results_of(swept).cells.to_pandas()
    assert len(ranking.layer_sets) == len(EVERY_SET)
    values = [each.value for each in ranking.layer_sets]
    assert values == sorted(values, reverse=criterion.large_is_good)
    for each in ranking.layer_sets:
        of_seeds = [best_in_cells(cells, layers_named(each.layer_set), seed, criterion) for seed in (0, 1)]
        mean = math.sqrt(of_seeds[0] * of_seeds[1]) if criterion.geometric else sum(of_seeds) / 2
        assert each.value == pytest.approx(mean)
        assert (each.lowest, each.highest) == (min(of_seeds), max(of_seeds))
        assert each.n_parameters == cells[cells["layer_set"] == each.layer_set]["n_parameters"].iloc[0]


def test_a_ranking_says_what_it_rests_on(swept: Path, tmp_path: Path):
    def change(cells: pd.DataFrame) -> pd.DataFrame:
        cells["condition_number_resolved"] = ~((cells["layer_set"] == "layers:1") & (cells["seed"] == 1))
        return cells

    ranking = rank(load(with_cells(swept, tmp_path, change)), BY_NAME["condition_fixed"])
    assert (ranking.n_train, ranking.n_eval, ranking.n_seeds) == (10, 6, 2)
    assert (ranking.lambdas, ranking.lambda_scale) == ([0.01, 1.0], "trace")
    assert (ranking.n_kernels, ranking.n_unresolved) == (30, 1)
    assert ranking.unfinished == []


def test_a_ranking_is_about_the_largest_training_set(finished_regression: Path):
    ranking = rank(results_of(finished_regression), BY_NAME["gcv"])
    cells = results_of(finished_regression).cells.to_pandas()
    of_set = cells[(cells["n_train"] == 24) & (cells["layer_set"] == ranking.layer_sets[0].layer_set)]
    assert ranking.n_train == 24
    assert ranking.layer_sets[0].value == of_set["gcv"].min()


def test_layer_sets_that_are_not_finished_are_named_and_not_ranked(swept: Path, tmp_path: Path):
    def change(cells: pd.DataFrame) -> pd.DataFrame:
        return cells[~((cells["layer_set"] == "layers:1") & (cells["seed"] == 1))]

    folder = with_cells(swept, tmp_path, change)
    ranking = rank(load(folder), BY_NAME["gcv"])
    assert ranking.unfinished == ["layers:1"]
    assert "layers:1" not in [each.layer_set for each in ranking.layer_sets]
    assert "Not finished, and not ranked: layers:1" in ntksweep("select", folder).output


def test_nothing_is_ranked_where_nothing_is_finished(swept: Path, tmp_path: Path):
    folder = with_cells(swept, tmp_path, lambda cells: cells[:0])
    with pytest.raises(ResultsError, match="no layer set of the sweep is finished; `ntksweep run` goes on"):
        rank(load(folder), BY_NAME["gcv"])
