"""The trained cells of a sweep as runs of TensorBoard, while it goes on: hyperparameters, and curves by step.

Event files are written by the package `tensorboard` alone, without torch or TensorFlow.
"""

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.errors import OutdatedError, SweepError
from orchestrator.plan.index import IndexedComparison, IndexedSolve, PlanIndex, plan_index
from orchestrator.results.status import Status
from orchestrator.store.artifacts import Artifact
from orchestrator.store.files import make_folder
from orchestrator.sweep.folder import ResultsFolder

MODELS = ("finetune", "linearized", "difference")
"""What columns of `trajectories` begin with; their tags have a slash there, so that TensorBoard groups them."""

HPARAM_METRICS = ("finetune/eval_loss", "finetune/eval_accuracy", "finetune/eval_pearson")


@dataclass(frozen=True)
class Cell:
    """A trained cell.

    Attributes:
        name: name of its run.
        hyperparameters: by name.
    """

    name: str
    hyperparameters: Mapping[str, str | float]


class TensorBoard:
    """Writes runs of the trained cells of a sweep into a folder.

    Args:
        folder: the results folder.
        into: the folder that TensorBoard is given.

    Raises:
        OutdatedError: the package is not there.
        StorageError: `into` cannot be written.
    """

    def __init__(self, folder: ResultsFolder, into: Path) -> None:
        try:
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError:
            raise OutdatedError(
                "--tensorboard needs the package tensorboard: pip install 'ntksweep[tensorboard]'"
            ) from None
        make_folder(into)
        self._folder, self._into, self._writer_class = folder, into, EventFileWriter
        self._index: PlanIndex | None = None
        self._written: set[str] = set()
        self._writers: dict[str, Any] = {}
        self._seen: dict[str, int] = {}
        self._has_experiment = False

    def update(self, found: Status) -> None:
        """Write what is new: losses of trainings that run, and the curves of cells that are complete.

        Args:
            found: the present status of the sweep.
        """
        index = self._index = plan_index(self._folder, self._index)
        finished = self._folder.artifacts().finished("compare")
        for solve, comparison in _comparisons(index):
            if comparison.stage_id in finished and comparison.stage_id not in self._written:
                self._write_finished(index, solve, comparison)
        stages = index.stages.get("finetune", ())
        going = {one.stage: one.training for one in found.computing if one.training is not None}
        for solve, comparison in _comparisons(index) if going else ():
            cells = _cells(index, solve, comparison)
            for model, position, first in (
                ("finetune", comparison.trained, comparison.run * len(comparison.lambdas)),
                ("linearized", comparison.linearized, 0),
            ):
                training = going.get(stages[position])
                if training is not None:
                    for number, cell in zip(comparison.in_grid, cells, strict=True):
                        self._write_going(cell, model, training.step, training.losses.get(first + number))

    def close(self) -> None:
        """Close the files of cells that are not complete."""
        while self._writers:
            self._writers.popitem()[1].close()

    def _write_finished(self, index: PlanIndex, solve: IndexedSolve, comparison: IndexedComparison) -> None:
        self._written.add(comparison.stage_id)
        cells = _cells(index, solve, comparison)
        done = [self._into / cell.name / f"{comparison.stage_id}.written" for cell in cells]
        if all(path.exists() for path in done):
            return
        with suppress(SweepError):  # a damaged artifact is found, and told, when tables are written
            artifact = self._folder.artifacts().read("compare", comparison.stage_id)
            for number, cell, path in zip(comparison.in_grid, cells, done, strict=True):
                writer = self._writer(cell)
                for step, values in _curves(artifact, number):
                    _add(writer, step, values)
                self._writers.pop(cell.name).close()
                path.touch()

    def _write_going(self, cell: Cell, model: str, step: int, loss: float | None) -> None:
        key = f"{cell.name}/{model}"
        if loss is not None and step > self._seen.get(key, 0):
            self._seen[key] = step
            writer = self._writer(cell)
            _add(writer, step, {f"{model}/batch_loss": loss})
            writer.flush()

    def _writer(self, cell: Cell) -> Any:
        """Return the writer of a cell's run, which begins with its hyperparameters."""
        from tensorboard.plugins.hparams import summary_v2

        if not self._has_experiment:
            self._has_experiment = True
            names = [summary_v2.HParam(name) for name in cell.hyperparameters]
            metrics = [summary_v2.Metric(name) for name in HPARAM_METRICS]
            experiment = self._writer_class(str(self._into))
            experiment.add_event(_event(0, summary_v2.hparams_config_pb(hparams=names, metrics=metrics)))
            experiment.close()
        if cell.name not in self._writers:
            writer = self._writers[cell.name] = self._writer_class(str(self._into / cell.name))
            given = dict(cell.hyperparameters)
            writer.add_event(_event(0, summary_v2.hparams_pb(given, trial_id=cell.name, start_time_secs=time.time())))
        return self._writers[cell.name]


def _comparisons(index: PlanIndex) -> Iterator[tuple[IndexedSolve, IndexedComparison]]:
    return ((solve, comparison) for solve in index.solves for comparison in solve.comparisons)


def _cells(index: PlanIndex, solve: IndexedSolve, comparison: IndexedComparison) -> list[Cell]:
    """Return the cells of a comparison that the grid has, in the order of its arrays."""
    found = []
    for strength in [index.lambdas[position] for position in comparison.in_grid.values()]:
        given: dict[str, str | float] = {
            "layer_set": index.layer_sets[comparison.layer_set], "lambda": strength, "seed": solve.seed,
            "n_train": solve.n_train,
        }  # fmt: skip
        if variant := index.variants[solve.variant]:
            given["variant"] = variant
        several = len({each.n_train for each in index.solves}) > 1
        parts = [
            *([variant] if variant else []), given["layer_set"], f"lambda {strength:g}", f"seed {solve.seed}",
            *([f"n_train {solve.n_train}"] if several else []),
        ]  # fmt: skip
        found.append(Cell(re.sub(r"[/\\\x00-\x1f]", "_", ", ".join(map(str, parts))), given))
    return found


def _curves(artifact: Artifact, cell: int) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield the values of a cell at each of its evaluations, by tag; those that do not exist are left out."""
    prefix = "trajectories."
    curves = {
        _tag(name.removeprefix(prefix)): np.array(artifact.array(name))[:, cell]
        for name in artifact.names()
        if name.startswith(prefix)
    }
    for position, step in enumerate(np.array(artifact.array("steps"))[: int(artifact.array("evaluations")[cell])]):
        values = {tag: float(curve[position]) for tag, curve in curves.items()}
        yield int(step), {tag: value for tag, value in values.items() if np.isfinite(value)}


def _tag(column: str) -> str:
    model = next((model for model in MODELS if column.startswith(f"{model}_")), None)
    return f"{model}/{column.removeprefix(f'{model}_')}" if model else column


def _add(writer: Any, step: int, values: Mapping[str, float]) -> None:
    from tensorboard.compat.proto.summary_pb2 import Summary

    content = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
    writer.add_event(_event(step, Summary(value=content)))


def _event(step: int, summary: Any) -> Any:
    from tensorboard.compat.proto.event_pb2 import Event

    return Event(wall_time=time.time(), step=step, summary=summary)
