"""What is shown of a trained sweep: whose numbers they are, with standard errors, and its runs of TensorBoard."""

import io
import math
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from orchestrator.cli.summary import summarize
from orchestrator.cli.summary_view import summary_view
from orchestrator.cli.watching import looking_at
from orchestrator.plan.index import plan_index
from orchestrator.results.loading import load
from orchestrator.results.pictures.kinds import picture_named
from orchestrator.results.pictures.measured import Measured
from orchestrator.results.pictures.tables import TablesOfResults
from orchestrator.results.report.summary import summarize as summary_of_report
from orchestrator.results.status import Computing
from orchestrator.results.tensorboard import TensorBoard
from orchestrator.store.training_progress import TrainingProgress
from orchestrator.sweep.folder import ResultsFolder
from tests.orchestrator.cli.answers import strict_json
from tests.orchestrator.stages.trained_sweeps import TRAINING
from tests.orchestrator.sweeps import make_sweep, ntksweep, rewrite_table

SHARED: dict[str, Any] = {"stacked_cells": 9, "stacked_across": ["seeds"]}
GRID: dict[str, Any] = {
    "grid.seeds": [0, 1, 2], "grid.lambdas": {"values": [0.1, 1.0, 10.0], "scale": "trace"},
    "grid.layer_sets": ["each_layer"], "grid.n_train": [10, 6],
    "finetune": TRAINING | SHARED | {"epochs": 2, "num_evaluations": 2, "kernel_examples": 0},
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The results of a sweep that was run for TensorBoard as well; nobody changes them."""
    folder = tmp_path_factory.mktemp("trained")
    spec = make_sweep(folder, GRID, model=tiny_model)
    answer = ntksweep("run", spec, "--tensorboard", folder / "board")
    assert (answer.status, list((folder / "results" / "training").iterdir())) == (0, [])
    (folder / "said").write_text(answer.output)
    return folder / "results"


def cells_of(results: Path) -> pd.DataFrame:
    return load(results).cells.to_pandas()


def printed(results: Path, width: int) -> list[str]:
    stream = io.StringIO()
    console = Console(file=stream, width=width)
    for part in summary_view(summarize(load(results)), width):
        console.print(part)
    return stream.getvalue().splitlines()


def test_every_number_has_its_mean_and_standard_error_at_the_best_lambda_of_the_fine_tuned_model(trained: Path):
    cells = cells_of(trained)
    facts = strict_json(ntksweep("show", trained, "--json").output)
    assert (facts["trained"], facts["metric"], facts["n_seeds"], facts["least_seeds"]) == (True, "eval_accuracy", 3, 5)
    assert [(one["layer_set"], one["n_train"]) for one in facts["layer_sets"]] == [
        (name, n) for n in (10, 6) for name in ("layers:0", "layers:1")
    ]
    for shown in facts["layer_sets"]:
        own = cells[(cells["layer_set"] == shown["layer_set"]) & (cells["n_train"] == shown["n_train"])]
        means = own.groupby("lambda_given")["finetune_eval_loss"].mean()
        assert (shown["best_lambda"], shown["chosen_by"]) == (means.idxmin(), "finetune_eval_loss")
        assert shown["at_edge"] == (means.idxmin() in (0.1, 10.0))
        best = own[own["lambda_given"] == means.idxmin()]
        for model in ("", "linearized_", "finetune_"):
            for metric in ("loss", "accuracy", "mcc", "f1"):
                values = best[f"{model}eval_{metric}"].to_numpy()
                assert shown[f"{model}eval_{metric}"] == {
                    "mean": pytest.approx(values.mean()), "seeds": 3,
                    "standard_error": pytest.approx(values.std(ddof=1) / math.sqrt(3), abs=1e-12),
                }  # fmt: skip


def test_a_screen_says_whose_numbers_and_how_far_to_trust_them(trained: Path):
    wide, narrow = printed(trained, 200), printed(trained, 80)
    for lines in (wide, narrow):
        assert lines[0].startswith("Each layer set at its best lambda, by evaluation loss of the fine-tuned model")
        assert "mean±standard error over 3 seeds; lambda in units of trace/M" in lines
        (place,) = (number for number, line in enumerate(lines) if line.startswith("n_train"))
        assert lines[place - 1].split()[:3] == ["ridge", "linearized", "fine-tuned"]
        assert any(line.startswith("majority baseline: accuracy 0.") for line in lines)
        assert "3 seeds: an interval or a standard error from fewer than 5 seeds means nothing." in lines
    assert max(map(len, narrow)) <= 80
    assert wide[3].split() == ["ridge", "linearized", "fine-tuned"] * 2
    (row,) = (line for line in narrow if line.startswith("6") and "layers:1" in line)
    assert row.count("±") == 4


def test_means_do_not_count_what_diverged_and_lambdas_with_fewer_seeds_are_not_best(trained: Path, tmp_path: Path):
    shutil.copytree(trained, tmp_path / "results")
    cells = load(tmp_path / "results").cells.to_arrow()
    frame = cells.to_pandas()
    place = (frame["layer_set"] == "layers:0") & (frame["n_train"] == 10) & (frame["lambda_given"] == 1.0)
    frame.loc[place, "finetune_eval_loss"] = [1e-9, 1e-9, 1e9]
    frame.loc[place & (frame["seed"] == 2), "finetune_status"] = "diverged"
    columns = {name: frame[name] for name in ("finetune_eval_loss", "finetune_status")}
    for name, values in columns.items():
        position = cells.column_names.index(name)
        cells = cells.set_column(position, cells.field(position), pa.array(values, cells.field(position).type))
    rewrite_table(tmp_path / "results", "cells", cells)
    shown = next(one for one in summarize(load(tmp_path / "results")).layer_sets if one.layer_set == "layers:0")
    assert shown.best_lambda != 1.0


def test_a_run_ends_with_what_makes_a_page_and_a_pipe_gets_whole_lines(trained: Path):
    said = (trained.parent / "said").read_text().splitlines()
    assert said[-2].startswith("36 of 36 cells in ")
    assert said[-1].startswith("`ntksweep report ")
    assert said[-1].endswith("` makes a page of them")
    heading = next(line for line in said if line.startswith("n_train"))
    assert len(heading) > 100
    assert heading.split()[-3:] == ["condition", "eff.", "rank"]


def with_columns(trained: Path, results: Path, **columns: Any) -> Path:
    """Return a copy of results in which columns of `cells` have other values: one for all cells, or one each."""
    shutil.copytree(trained, results)
    cells = load(results).cells.to_arrow()
    for name, given in columns.items():
        field = cells.field(name)
        values = list(given) if isinstance(given, list | np.ndarray) else [given] * len(cells)
        cells = cells.set_column(cells.column_names.index(name), field, pa.array(values, field.type))
    rewrite_table(results, "cells", cells)
    return results


def cautions(results: Path) -> str:
    return " ".join(summary_of_report(Measured(TablesOfResults(load(results)))).cautions)


def test_trainings_that_got_nowhere_are_told_by_the_screen_and_the_report(trained: Path, tmp_path: Path):
    cells = cells_of(trained)
    way = cells["initial_train_loss"] - cells["train_loss"]
    gone = cells["initial_train_loss"] - cells["linearized_train_loss"]
    short = (gone < way / 2) & (gone >= 0) & (way >= 0.01 * cells["initial_train_loss"])
    assert 0 < short.sum() < 36
    beginning = f"In {short.sum()} of 36 trained cells (lambda "
    assert any(line.startswith(beginning) for line in printed(trained, 400))
    assert beginning in cautions(trained)
    there = with_columns(trained, tmp_path / "results", linearized_train_loss=cells["train_loss"].to_numpy())
    assert not any("training stopped" in line for line in printed(there, 400))
    assert "training stopped" not in cautions(there)


def test_a_lambda_beyond_the_edge_is_not_asked_for_where_losses_hardly_differ(trained: Path, tmp_path: Path):
    strengths = np.log10(cells_of(trained)["lambda_given"].to_numpy())
    for share, edges in ((4e-4, 0), (6e-4, 4)):  # per power of ten, of two
        losses = 0.5 * (1 + share * strengths)
        results = with_columns(trained, tmp_path / str(edges), finetune_eval_loss=losses)
        found = summarize(load(results))
        assert [one.best_lambda for one in found.layer_sets] == [0.1] * 4
        assert sum(one.at_edge for one in found.layer_sets) == edges
        picture = picture_named("lambda-path", Measured(TablesOfResults(load(results))))
        assert ("best at the edge of the grid" in picture.says) == bool(edges)
        report = summary_of_report(Measured(TablesOfResults(load(results))))
        assert ("(edge)" in str(report.best)) == bool(edges)


@pytest.mark.parametrize(
    ("slopes", "ends", "ones"),
    [
        ((1, 1), "smallest", "smaller"),
        ((-1, -1), "largest", "larger"),
        ((1, -1), "smallest or the largest", "smaller and larger"),
    ],
    ids=["small", "large", "both"],
)
def test_a_best_lambda_at_the_edge_says_in_which_direction_to_widen_the_grid(
    trained: Path, tmp_path: Path, slopes: tuple[int, int], ends: str, ones: str
):
    cells = cells_of(trained)
    slope = np.where(cells["layer_set"] == "layers:0", *slopes)
    losses = 0.5 + 0.1 * slope * np.log10(cells["lambda_given"].to_numpy())
    results = with_columns(trained, tmp_path / "results", finetune_eval_loss=losses)
    assert (
        f"(edge): in 4 of 4 rows the best lambda is the {ends} of the grid, so that one beyond it may be better: add "
        f"{ones} ones to grid.lambdas, and run again"
    ) in printed(results, 400)


def test_the_majority_baseline_is_explained(trained: Path):
    (line,) = (line for line in printed(trained, 400) if line.startswith("majority baseline: accuracy 0."))
    assert line.endswith(", reached by always answering the most common class")


def test_it_is_said_that_no_layer_set_is_better_than_the_majority(trained: Path, tmp_path: Path):
    shown = "no layer set is better than the majority baseline"
    for majority, worse in ((0.0, False), (1.0, True)):
        results = with_columns(trained, tmp_path / str(majority), majority_accuracy=majority)
        assert (shown in printed(results, 200)) == worse
        assert (f"{shown}: it has accuracy 1, the best of them 0." in cautions(results)) == worse


def test_before_a_cell_is_trained_the_screen_says_that_it_will_be(trained: Path, tmp_path: Path):
    results = with_columns(
        trained, tmp_path / "results", finetune_eval_loss=None, finetune_status=None, linearized_status=None
    )
    said = "no cell is trained yet (0 of 36)"
    assert f"Ridge solutions: the linearized model, solved exactly; {said}" in printed(results, 200)
    assert not any("nothing was trained" in line for line in printed(results, 200))
    assert summary_of_report(Measured(TablesOfResults(load(results)))).lead.endswith(
        "No cell is trained yet (0 of 36): all numbers are those of the linearized model, solved exactly."
    )


def test_the_cells_of_a_layer_set_are_shown_as_trained_the_best_first_with_their_identity(trained: Path):
    answer = ntksweep("show", trained, "--layer-set", "1", "--limit", "3")
    own = cells_of(trained).query("layer_set == 'layers:1'").sort_values("finetune_eval_loss")
    shown = [line.split()[0] for line in answer.output.splitlines()[-3:]]
    assert shown == own["cell_id"].tolist()[:3]
    headings = answer.output.splitlines()
    assert headings[0].split() == ["linearized_"] * 2 + ["finetune_"] * 2
    assert headings[1].split() == ["cell_id", "seed", "n_train", "lambda_given", *["eval_loss", "eval_accuracy"] * 3]
    best = ntksweep("show", trained, "--layer-set", "1", "--limit", "1", "--sort", "eval_loss", "--json").output
    assert strict_json(best)[0]["eval_loss"] == own["eval_loss"].min()


# --- TensorBoard


def read(run: Path) -> EventAccumulator:
    found = EventAccumulator(str(run))
    found.Reload()
    return found


def test_each_trained_cell_is_a_run_with_its_curves_and_hyperparameters(trained: Path):
    board = trained.parent / "board"
    trajectories = load(trained).table("trajectories").to_pandas()
    runs = [path.name for path in board.iterdir() if path.is_dir()]
    assert len(runs) == 36
    for (name, strength, seed, n_train), rows in trajectories.groupby(["layer_set", "lambda_given", "seed", "n_train"]):
        run = read(board / f"{name}, lambda {strength:g}, seed {seed}, n_train {n_train}")
        for column, tag in (
            ("finetune_eval_loss", "finetune/eval_loss"),
            ("linearized_train_accuracy", "linearized/train_accuracy"),
            ("difference_eval_relative", "difference/eval_relative"),
            ("finetune_distance", "finetune/distance"),
        ):
            known = rows[rows[column].notna()]
            assert [event.step for event in run.Scalars(tag)] == known["step"].tolist()
            assert [event.value for event in run.Scalars(tag)] == pytest.approx(known[column].tolist(), rel=1e-6)
        (tag,) = run.Tags()["tensors"]
        content = HParamsPluginData.FromString(run.SummaryMetadata(tag).plugin_data.content)
        given = content.session_start_info.hparams
        assert given["layer_set"].string_value == name
        assert (given["lambda"].number_value, given["seed"].number_value) == (strength, seed)


def test_what_was_written_is_not_written_again(trained: Path):
    board = trained.parent / "board"
    before = sorted(path for path in board.rglob("*") if path.is_file())
    again = ntksweep("run", trained.parent / "sweep.yaml", "--tensorboard", board)
    assert again.status == 0
    assert sorted(path for path in board.rglob("*") if path.is_file()) == before


def test_a_training_that_runs_has_the_losses_of_its_batches(trained: Path, tmp_path: Path):
    shutil.copytree(trained, tmp_path / "results")
    folder = ResultsFolder(tmp_path / "results")
    shutil.rmtree(folder.root / "artifacts" / "compare")
    index = plan_index(folder)
    comparison = next(
        one for solve in index.solves for one in solve.comparisons
        if (solve.seed, solve.n_train, index.layer_sets[one.layer_set]) == (1, 6, "layers:1")
    )  # fmt: skip
    assert comparison.run == 1  # the seeds share a model
    stage_id = index.stages["finetune"][comparison.trained]
    first = comparison.run * len(comparison.lambdas)
    found, board = looking_at(folder)(), TensorBoard(folder, tmp_path / "board")
    for step, loss in ((3, 0.75), (3, 0.75), (5, 0.5)):
        losses = {cell: loss + cell for cell in range(9)}
        going = Computing("finetune", stage_id, "here", 1, None, 0.0, TrainingProgress("", 10, 1, step, losses))
        board.update(replace(found, computing=(going,)))
    board.close()
    for position, place in comparison.in_grid.items():
        strength = index.lambdas[place]
        run = read(tmp_path / "board" / f"layers:1, lambda {strength:g}, seed 1, n_train 6")
        seen = [(event.step, event.value) for event in run.Scalars("finetune/batch_loss")]
        assert seen == [(3, pytest.approx(0.75 + first + position)), (5, pytest.approx(0.5 + first + position))]


def test_what_stands_in_the_way_of_tensorboard_is_told(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    spec = make_sweep(tmp_path, model=trained.parent / "model")
    answer = ntksweep("run", spec, "--tensorboard", tmp_path / "board")
    assert answer.status == 2
    assert "--tensorboard writes trained cells, and this spec trains none" in answer.errors
    assert not (tmp_path / "results").exists()
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.event_file_writer", None)
    answer = ntksweep("run", trained.parent / "sweep.yaml", "--tensorboard", tmp_path / "board")
    assert answer.status == 2
    assert "--tensorboard needs the package tensorboard: pip install 'ntksweep[tensorboard]'" in answer.errors
    assert not np.any([path.name == "board" for path in tmp_path.iterdir()])
