"""Cells without a split into head and features, and the column of the rank threshold."""

from pathlib import Path

import pytest

from tests.orchestrator.sweeps import make_sweep, results_of, run_spec

SHARES = ["feature_share_train", "feature_share_eval", "feature_trace_share"]


def test_a_head_by_itself_has_no_share_and_other_layer_sets_have(tmp_path: Path, tiny_model: Path):
    # Rank 1 in one group has fewer parameters than 24 examples have rows: solved without a kernel.
    sets = [{"groups": [["head"], ["0.query"]]}, "all_layers"]
    spec = make_sweep(
        tmp_path, {"grid.layer_sets": sets, "grid.n_train": [10, 30], "adapter.rank": 1}, model=tiny_model
    )
    ending = run_spec(spec)
    assert not ending.report.failures
    assert {solve.stage.parameters.method for solve in ending.plan.solves} == {"primal", "dual"}
    cells = results_of(spec).cells.to_pandas()
    alone = cells["layer_set"] == "head"
    assert cells[alone][SHARES].isna().all(axis=None)
    assert cells[~alone][SHARES].notna().all(axis=None)
    assert cells[~alone]["feature_trace_share"].between(0, 1).all()
    per_problem = cells.groupby(["layer_set", "n_train"])[SHARES].nunique(dropna=False)
    assert (per_problem == 1).all(axis=None), "a share does not depend on lambda"


@pytest.mark.parametrize(("outputs", "thresholds"), [("full", {10: 6, 30: 11}), ("margin", {10: 5, 30: 8})])
def test_the_rank_threshold_counts_the_outputs_that_are_trained(
    outputs: str, thresholds: dict[int, int], tmp_path: Path, tiny_model: Path
):
    changes = {"kernel.outputs": outputs, "grid.n_train": [10, 30], "grid.layer_sets": ["all_layers"]}
    spec = make_sweep(tmp_path, changes, model=tiny_model)
    run_spec(spec)
    cells = results_of(spec).cells.to_pandas()
    assert dict(zip(cells["n_train"], cells["rank_threshold"], strict=True)) == thresholds
