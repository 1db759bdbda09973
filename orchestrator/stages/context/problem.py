"""The regression problem of a solve stage: targets, initial outputs and metrics, as the kernel's rows need them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune.data.metrics import classification_metrics, majority_accuracy, regression_metrics
from finetune.data.targets import arrange, code_targets
from ntk_dist.arrays import FloatArray
from ntk_dist.kernel.features import OutputMode
from orchestrator.stages.base.parameters import WithProblem
from orchestrator.stages.context.blocks import SCORES
from orchestrator.stages.context.joined_tiles import HeldBlocks, joined
from orchestrator.stages.context.work import Work
from orchestrator.store.artifacts import Artifact
from orchestrator.store.stage import Reads


@dataclass(frozen=True, eq=False)
class Problem:
    """Targets y and initial outputs f_0 of train and evaluation examples, one row a row of the kernel.

    M rows of the kernel for training, M_eval for evaluation, k targets a row.

    Attributes:
        kind: classification or regression.
        n_outputs: outputs C of the model.
        mode: which outputs the kernel keeps: full, trace or margin.
        labels, eval_labels: classes or ratings, (n_train,) and (n_eval,).
        targets, eval_targets: y, (M, k) and (M_eval, k).
        initial, eval_initial: f_0, (M, k) and (M_eval, k); nan of training examples that the kernel does not have.
    """

    kind: str
    n_outputs: int
    mode: str
    labels: npt.NDArray[np.generic]
    eval_labels: npt.NDArray[np.generic]
    targets: FloatArray
    eval_targets: FloatArray
    initial: FloatArray
    eval_initial: FloatArray

    @property
    def residual(self) -> FloatArray:
        """R = y - f_0 on the training examples, (M, k)."""
        return self.targets - self.initial

    @property
    def n_train(self) -> int:
        """Training examples."""
        return len(self.labels)

    @property
    def n_eval(self) -> int:
        """Evaluation examples."""
        return len(self.eval_labels)

    @property
    def size(self) -> int:
        """Rows M of the kernel."""
        return len(self.targets)

    @property
    def eval_size(self) -> int:
        """Rows of the kernel between evaluation and training examples."""
        return len(self.eval_targets)

    @property
    def rows_per_example(self) -> int:
        """Rows of the kernel that an example gives."""
        return self.n_outputs if self.mode == "full" else 1

    @property
    def outputs_per_example(self) -> int:
        """Rows of the Jacobian that make one feature row: C for the trace-averaged kernel, else 1."""
        return self.n_outputs if self.mode == "trace" else 1

    @cached_property
    def initial_scalars(self) -> dict[str, float]:
        """Return losses and metrics of the model before fine-tuning, and the accuracy of the majority baseline."""
        scalars = {
            "initial_train_loss": float(np.sum(self.residual**2)) / (2 * self.n_train),
            "initial_eval_loss": float(np.sum((self.eval_targets - self.eval_initial) ** 2)) / (2 * self.n_eval),
        }
        for name, values in self.metrics("eval", self.eval_initial[None]).items():
            scalars[f"initial_{name}"] = float(values[0])
        if self.kind == "classification":
            scalars["majority_accuracy"] = majority_accuracy(
                self.labels.astype(np.int64), self.eval_labels.astype(np.int64)
            )
        return scalars

    def metrics(self, split: str, outputs: FloatArray) -> dict[str, FloatArray]:
        """Return the task's metrics of outputs (L, M, k), (L,) each, with the split's name as a prefix."""
        labels = self.labels if split == "train" else self.eval_labels
        if self.kind == "regression":
            found = regression_metrics(outputs.reshape(len(outputs), -1), labels.astype(np.float64))
            found = {name: found[name] for name in ("pearson", "spearman", "r2")}
        else:
            scores = outputs.reshape(len(outputs), len(labels), -1)
            found = classification_metrics(scores, labels.astype(np.int64))
        return {f"{split}_{name}": values for name, values in found.items()}


def load_problem(stage: Reads[WithProblem], work: Work) -> Problem:
    """Return the problem of a solve stage, read from the store once for successive stages that share it."""
    inputs = [stage.inputs.get(role) for role in ("dataset", "train", "eval", "tiles", "eval_tiles")]
    of = stage.parameters.problem, inputs
    last = work.shared(_LastProblem)
    if last.problem is None or last.of != of:
        last.of, last.problem = of, _read_problem(stage, work)
    return last.problem


class _LastProblem:
    """The problem that was read last, with the key that identifies it."""

    def __init__(self) -> None:
        self.of: Any = None
        self.problem: Problem | None = None


def _read_problem(stage: Reads[WithProblem], work: Work) -> Problem:
    parameters = stage.parameters.problem
    dataset = work.input(stage, "dataset")

    def initial(split: str, n_examples: int) -> FloatArray:
        return initial_outputs(_with_scores(stage, work, split), n_examples, parameters.kernel.outputs)

    n_eval = len(dataset.array("eval.labels"))
    return problem_of(stage, dataset, initial("train", parameters.n_train), initial("eval", n_eval))


def _with_scores(stage: Reads[WithProblem], work: Work, split: str) -> Sequence[HeldBlocks]:
    """Return the artifacts with the initial outputs of a split, in order: captures, or the first column of tiles."""
    if split in stage.inputs:
        return work.inputs(stage, split)
    return first_columns(work.inputs(stage, "tiles" if split == "train" else "eval_tiles"))


def first_columns(tiles: Sequence[Artifact]) -> list[HeldBlocks]:
    """Return the tiles in the first column of a kernel, one for each place: they have the outputs of all its rows."""
    return [tile for tile in joined(tiles) if tile.facts["columns"][0] == 0]


def initial_outputs(found: Sequence[HeldBlocks], n_examples: int, mode: OutputMode) -> FloatArray:
    """Return f_0 (M, k) of the first examples, as captures or tiles hold them in order; nan of what these lack.

    Args:
        found: the captures or tiles.
        n_examples: the examples.
        mode: which outputs the kernel keeps.
    """
    scores = np.concatenate([each.array(SCORES) for each in found])[:n_examples]
    beyond = np.full((n_examples - len(scores), scores.shape[1]), np.nan, dtype=scores.dtype)
    return arrange(np.concatenate([scores, beyond]), mode)


def problem_of(stage: Reads[WithProblem], dataset: Artifact, initial: FloatArray, eval_initial: FloatArray) -> Problem:
    """Return the problem of a solve stage, from its examples and their initial outputs f_0, (M, k) and (M_eval, k)."""
    parameters = stage.parameters.problem
    mode, n_outputs = parameters.kernel.outputs, parameters.scorer.n_outputs
    kind, n_train = parameters.task_kind, parameters.n_train
    labels = np.array(dataset.array("train.labels")[:n_train])
    eval_labels = np.array(dataset.array("eval.labels"))

    def targets(of: npt.NDArray[np.generic]) -> FloatArray:
        return code_targets(of, kind=kind, n_outputs=n_outputs, outputs=mode)

    return Problem(
        kind=kind,
        n_outputs=n_outputs,
        mode=mode,
        labels=labels,
        eval_labels=eval_labels,
        targets=targets(labels),
        eval_targets=targets(eval_labels),
        initial=initial,
        eval_initial=eval_initial,
    )
