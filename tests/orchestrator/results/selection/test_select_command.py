"""The command select: what it prints and what scripts read of it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from orchestrator.results.selection.baselines import (
    ILL_CONDITIONED,
    LAST,
    RANDOM,
    WELL_CONDITIONED,
)
from orchestrator.results.selection.greedy import select_layers
from orchestrator.results.selection.ranking import rank
from tests.orchestrator.results.selection.swept import BY_NAME, EVERY_SET, NAMES, folder_of, variant_in, with_cells
from tests.orchestrator.sweeps import ntksweep, results_of

pytestmark = pytest.mark.xdist_group("selection")


def test_select_prints_the_ranking_and_what_it_rests_on(swept: Path):
    answer = ntksweep("select", swept)
    assert answer.status == 0
    text = " ".join(answer.output.split())
    assert "Layer sets by gcv, smallest first (mean over 2 seeds)" in text
    assert "gcv: generalized cross-validation" in text
    assert "If a ridge head was fitted to these labels, that is counted." in text
    assert "its best of 2 lambdas, 0.01 to 1, in units of trace/M" in text
    assert "rests on 10 training examples and 2 seeds" in text
    assert "noise floor" not in text
    names = [line.split()[0] for line in answer.output.splitlines() if line.startswith("layers:")]
    assert names == [each.layer_set for each in rank(results_of(swept), BY_NAME["gcv"]).layer_sets]


def test_select_says_what_belongs_to_the_criterion(swept: Path, tmp_path: Path):
    def change(cells: pd.DataFrame) -> pd.DataFrame:
        cells["condition_number_resolved"] = cells["layer_set"] != "layers:1"
        return cells

    resolved = " ".join(ntksweep("select", swept, "--by", "condition_fixed").output.split())
    assert "(geometric mean over 2 seeds)" in resolved
    assert "noise floor" not in resolved
    assert "lambdas" not in resolved
    folder = with_cells(swept, tmp_path, change)
    noise = " ".join(ntksweep("select", folder, "--by", "condition_fixed").output.split())
    assert "2 of 30 kernels have a smallest eigenvalue below the noise floor (condition_number_resolved is" in noise
    assert "noise floor" not in ntksweep("select", folder, "--by", "alignment").output
    assert "largest first" in ntksweep("select", swept, "--by", "effective_rank").output
    assert "10 training and 6 evaluation examples" in " ".join(
        ntksweep("select", swept, "--by", "eval_loss").output.split()
    )


def test_select_warns_of_gcv_where_texts_repeat(swept: Path, tmp_path: Path):
    def change(cells: pd.DataFrame) -> pd.DataFrame:
        cells["repeats_in_train"] = np.where(cells["seed"] == 1, 3, 0)
        return cells

    said = "3 training examples of a seed repeat an earlier text"
    folder = with_cells(swept, tmp_path, change)
    assert said in " ".join(ntksweep("select", folder).output.split())
    assert said not in " ".join(ntksweep("select", folder, "--by", "leave_one_out").output.split())
    assert "repeat an earlier text" not in ntksweep("select", swept).output


def test_select_shows_greedy_steps_beside_baselines(swept: Path):
    answer = ntksweep("select", folder_of(swept).root, "--by", "alignment", "--greedy", "2")
    assert answer.status == 0
    folder = folder_of(swept)
    selection = select_layers(*variant_in(folder), folder, BY_NAME["alignment"], 2)
    lines = answer.output.splitlines()
    for step in selection.seeds[0].steps:
        assert any(line.startswith(f"+ layer {step.layer} ") and f"{step.value:.4g}" in line for line in lines)
    for each in selection.seeds:
        layers = ", ".join(str(step.layer) for step in each.steps)
        assert f"seed {each.seed} chose {layers} with {each.steps[-1].value:.4g}" in answer.output
    assert f"{selection.agreement[-1]} of 2" in answer.output


def test_the_json_of_select_has_all_of_it(swept: Path):
    facts = json.loads(ntksweep("select", swept, "--by", "gcv", "--greedy", "2", "--json").output)
    assert facts["criterion"]["column"] == "gcv"
    assert len(facts["layer_sets"]) == len(EVERY_SET)
    assert set(facts["layer_sets"][0]) == {"layer_set", "value", "lowest", "highest", "n_parameters"}
    first = facts["greedy"]["seeds"][0]
    assert [len(each["steps"]) for each in facts["greedy"]["seeds"]] == [2, 2]
    assert set(first["steps"][0]["baselines"]) == {RANDOM, LAST, WELL_CONDITIONED, ILL_CONDITIONED}
    assert "greedy" not in json.loads(ntksweep("select", swept, "--json").output)


def test_the_help_of_select_names_every_criterion():
    text = " ".join(ntksweep("select", "--help").output.replace("│", " ").split())
    assert all(name in text for name in NAMES)


def test_select_explains_wrong_input(swept: Path, finished_regression: Path, tmp_path: Path):
    answer = ntksweep("select", swept, "--by", "gvc")
    assert (answer.status, answer.output) == (2, "")
    assert "there is no criterion `gvc`; did you mean `gcv`?" in answer.errors
    assert "needs kernel.eigenvectors" in ntksweep("select", finished_regression, "--by", "leave_one_out").errors
    assert "--greedy 9: the sweep's layer sets touch 4 layers" in ntksweep("select", swept, "--greedy", "9").errors
    assert "there are no results at" in ntksweep("select", tmp_path / "none").errors
