"""The page of the study is what its tables give, and three of its numbers are what plain formulas make of the cells."""

import importlib.util
import re
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from tests.orchestrator.results.by_scipy import by_scipy
from tests.root import ROOT

FOLDER = ROOT / "results/reference/study"
PAGE = (FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def answers() -> ModuleType:
    spec = importlib.util.spec_from_file_location("answers", ROOT / "examples/study/answers.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cells_of(sweep: str) -> pd.DataFrame:
    cells = pd.read_parquet(FOLDER / sweep / "cells.parquet")
    return cells[cells["finetune_status"] != "diverged"]


def numbers(heading: str, first: str) -> list[float]:
    """Return the numbers of the row that begins with `first` below a heading of the page."""
    below = PAGE.partition(f"{heading}\n")[2].partition("\n## ")[0]
    row = next(line for line in below.splitlines() if line.startswith(f"| {first} |"))
    return [
        float(found) for found in re.findall(r"(?<![\w`])-?\d+(?:\.\d+)?(?:e[+-]\d+)?", row.removeprefix(f"| {first}"))
    ]


def test_the_page_is_what_the_tables_give(answers: ModuleType):
    sweeps = [answers.Found.read(FOLDER / name) for name in answers.SWEEPS if (FOLDER / name).is_dir()]
    assert "\n".join(answers.page(sweeps)) + "\n" == PAGE


def test_how_far_the_linearization_is_from_fine_tuning_and_what_that_gains():
    cells = cells_of("minilm")
    own = cells[(cells["task"] == "sst2") & (cells["lambda_given"] == 1000.0)]
    heading = "## At which λ does linearization hold, and does fine-tuning gain there? minilm"
    difference, before, after, _, _, accuracy = numbers(heading, "sst2 | 1000")
    apart = own["difference_eval_relative"].to_numpy()
    assert difference == pytest.approx(np.prod(apart ** (1 / len(apart))), rel=5e-3)
    assert before == pytest.approx(own["initial_eval_loss"].mean(), abs=5.1e-5)
    assert after == pytest.approx(own["finetune_eval_loss"].mean(), abs=5.1e-5)
    assert accuracy == pytest.approx(own["finetune_eval_accuracy"].mean(), abs=5.1e-4)


def test_how_the_trace_orders_layer_sets():
    found = []
    for sweep in ("minilm", "decoder"):
        if not (FOLDER / sweep).is_dir():
            continue
        for _, of_task in cells_of(sweep).groupby("task"):
            values = []
            for _, group in of_task.groupby(["learning_rate", "lambda_given"]):
                rows = group.assign(trace=np.log(group["trace"]), apart=np.log(group["difference_eval_relative"]))
                sets = rows.groupby("layer_set")[["trace", "apart", "finetune_eval_loss", "n_parameters"]].mean()
                sets = sets[sets["apart"] <= np.log(0.1)]
                if len(sets) >= 4:
                    x, y, size = (sets[name].to_numpy() for name in ("trace", "finetune_eval_loss", "n_parameters"))
                    values.append(by_scipy("partial_spearman", x, y, size))
            if np.isfinite(values).any():
                found.append(np.nanmean(values))
    median = numbers("## Which number orders layer sets where linearization holds? fixed heads", "`trace`")[0]
    assert median == pytest.approx(np.median(found), abs=5.1e-3)


def test_what_it_costs_to_adapt_all_layers():
    cells = cells_of("minilm")
    excess = {}
    for (task, _), rows in cells.groupby(["task", "lambda_given"]):
        if np.exp(np.log(rows["difference_eval_relative"]).mean()) < 0.1:
            of_seeds = [
                of_seed.loc[of_seed["n_parameters"].idxmax(), "finetune_eval_loss"]
                - of_seed["finetune_eval_loss"].min()
                for _, of_seed in rows.groupby("seed")
            ]
            excess.setdefault(task, []).append(np.mean(of_seeds))
    printed = numbers("## What would choosing by it have cost? minilm", "all")[0]
    assert printed == pytest.approx(np.mean([np.mean(values) for values in excess.values()]), abs=5.1e-6)
