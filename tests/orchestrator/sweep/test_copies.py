"""Texts that stand several times: said in `plan`, counted in the table, and kept apart on request."""

from pathlib import Path

import pyarrow.parquet as pq

from finetune.data.sampling import sample
from finetune.data.task import read_examples
from finetune.settings import TaskSettings
from tests.orchestrator.sweeps import make_sweep, ntksweep, results_of, run_spec, write_data

TEXTS = ["a film", "it was", "a plot", "very dull"] * 5 + [f"{'good ' * i}story" for i in range(1, 21)]
GRID = {"grid.n_train": [10, 20], "grid.layer_sets": ["all_layers"], "results.predictions": True}


def spec_with_copies(folder: Path, model: Path, **changes: object) -> Path:
    spec = make_sweep(folder, GRID | {f"task.{key}": value for key, value in changes.items()}, model=model)
    write_data(folder / "data.parquet", text=TEXTS)
    return spec


def test_copies_are_said_and_counted(tmp_path: Path, tiny_model: Path):
    spec = spec_with_copies(tmp_path, tiny_model, sampling="first")
    answer = " ".join(ntksweep("plan", spec).output.split())
    assert "16 of 40 examples of split train have a text that an earlier one has" in answer
    assert "task.distinct_texts: true" in answer
    assert not run_spec(spec).report.failures
    cells = results_of(spec).cells.to_pandas().drop_duplicates("n_train").set_index("n_train")
    assert cells["repeats_in_train"].to_dict() == {10: 6, 20: 16}
    assert cells["eval_in_train"].to_dict() == {10: 0, 20: 0}


def test_copies_among_evaluation_examples_are_counted_and_kept_apart(tmp_path: Path, tiny_model: Path):
    spec = spec_with_copies(tmp_path / "copies", tiny_model)
    run_spec(spec)
    results = results_of(spec)
    texts = pq.read_table(tmp_path / "copies" / "data.parquet")["text"].to_pylist()
    rows = results.predictions.to_pandas()["example"].unique().tolist()
    cells = results.cells.to_pandas().drop_duplicates("n_train").set_index("n_train")
    evaluated = [texts[row] for row in rows]
    # All other texts are trained on where nothing but the evaluation examples is left out.
    assert cells.loc[20, "eval_in_train"] == sum(text in TEXTS[:4] for text in evaluated)
    pool = read_examples(TaskSettings(str(tmp_path / "copies" / "data.parquet"), kind="classification"))
    trained = {texts[row] for row in sample(pool, n_train=10, n_eval=len(rows), seed=0).train}
    assert 0 < cells.loc[10, "eval_in_train"] == sum(text in trained for text in evaluated)
    assert cells.loc[10, "eval_in_train"] < cells.loc[20, "eval_in_train"]

    apart = spec_with_copies(tmp_path / "apart", tiny_model, distinct_texts=True, n_eval=4)
    run_spec(apart)
    cells = results_of(apart).cells.to_pandas()
    assert (cells[["eval_in_train", "repeats_in_train"]] == 0).all(axis=None)
    answer = ntksweep("plan", spec_with_copies(tmp_path / "few", tiny_model, distinct_texts=True))
    assert "grid.n_train 20 and task.n_eval 6 need more than the 24 that can be used" in answer.errors
