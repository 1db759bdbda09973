"""The stage `combine`: evaluation on two tasks of combinations of the weights trained on each."""

from collections.abc import Mapping, Sequence
from dataclasses import fields

import numpy as np
import numpy.typing as npt
import torch

from finetune.errors import CombinationError
from finetune.training.combining import combined, combined_outputs, linearity_gap, weights_of
from finetune.training.outputs import all_outputs
from finetune.training.trainable import Displacement
from ntk_dist.arrays import FloatArray
from orchestrator.stages.base.parameters import ScorerParameters
from orchestrator.stages.combine import CombineParameters, planned
from orchestrator.stages.combine.combinations import SIDES, Combined, Side
from orchestrator.stages.context.problem import load_problem
from orchestrator.stages.context.work import Product, Work
from orchestrator.stages.finetune import RunParameters
from orchestrator.stages.finetune.trained_cells import TrainedCells
from orchestrator.stages.finetune.training_inputs import TrainingInputs
from orchestrator.store.stage import Part, Stage
from orchestrator.sweep.training_estimates import FITTED_HEADS


def compute(stage: Stage[CombineParameters], work: Work) -> Product:
    """Combine S cells of two tasks, trained with the same lambdas.

    For C combinations, in the order of `combinations_of`, the artifact holds `linearity_gap` (2, C, S) and for both
    models `finetune_<column>` and `linearized_<column>` (2, C, S): loss and metrics on the evaluation examples of
    either task.

    Raises:
        CombinationError: the tasks do not start from the same weights, or have other numbers of outputs.
    """
    check_same_start(*(stage.parameters.of(side).problem.scorer for side in SIDES))
    n_cells = len(stage.parameters.a.cells.lambdas)
    found: dict[str, list[list[FloatArray]]] = {}
    for side in SIDES:
        examples = _Examples(stage, work, side)
        of_side: dict[str, list[FloatArray]] = {}
        for cell in range(n_cells):
            trained = {model: _displacements(stage, work, model, cell) for model in ("trained", "linearized")}
            for name, values in _combine(examples, trained, planned(stage)).items():
                of_side.setdefault(name, []).append(values)
        for name, by_cell in of_side.items():
            found.setdefault(name, []).append(by_cell)
    arrays = {name: np.stack([np.stack(by_cell, axis=1) for by_cell in both]) for name, both in found.items()}
    return Product({}, work.write_arrays(stage, arrays))


def check_same_start(first: ScorerParameters, second: ScorerParameters) -> None:
    """Check by the parameters of two scorers that training starts from the same weights with the same outputs.

    Raises:
        CombinationError: it does not; the message names the difference.
    """
    differing = [each.name for each in fields(first) if getattr(first, each.name) != getattr(second, each.name)]
    if differing:
        raise CombinationError(
            f"the tasks to be combined differ in {', '.join(sorted(differing))}; combine tasks of one model, adapter "
            "and head with equally many outputs"
        )
    if first.head.kind in FITTED_HEADS:
        raise CombinationError(
            f"a {first.head.kind} head is fitted to each task, so that training starts from different weights; "
            "use head.kind: random, pretrained or label_words"
        )


class _Examples:
    """The evaluation examples of one task, and the outputs of models of either task on them."""

    def __init__(self, stage: Stage[CombineParameters], work: Work, side: Side) -> None:
        cells, frozen = stage.parameters.of(side).cells, stage.parameters.frozen_layers
        alone = Part(RunParameters(cells, "nonlinear", None, 0, frozen), stage.inputs_of(side))
        self._problem = load_problem(alone, work)
        self._inputs = TrainingInputs(alone, work, self._problem, ["eval"])
        self._model = self._inputs.model(1)
        self._at_once = work.halved(self._inputs.settings.batch_size)
        self._shards = work.inputs(alone, "eval")
        self.initial: FloatArray = np.concatenate([shard.array("scores") for shard in self._shards]).astype(np.float64)

    def outputs(self, displacement: Displacement) -> FloatArray:
        """Return f(theta_0 + d) (n, R) of the model itself."""
        self._model.displacements = [displacement]
        (outputs,) = all_outputs(self._model, "eval", [0], at_once=self._at_once)
        return np.asarray(outputs)

    def linearized_outputs(self, displacement: Displacement) -> FloatArray:
        """Return f_0 + J d (n, R), from the captured rows, one shard and group at a time."""
        outputs = self.initial.copy()
        first = 0
        for shard in self._shards:
            last = first + len(shard.array("scores"))
            for group in self._inputs.groups:
                change = shard.array(group) @ self._flat(group, displacement)
                outputs[first:last] += change.reshape(last - first, -1)
            first = last
        return outputs

    def _flat(self, group: str, displacement: Displacement) -> npt.NDArray[np.floating]:
        """Return the displacement (p_g,) of a group in the order of the columns of its rows."""
        parts = [
            displacement[f"{linear.name}.{kind}"].flatten()
            for linear in self._inputs.scorer.groups[group]
            for kind, _ in linear.named_parameters()
        ]
        return np.asarray(torch.cat(parts).numpy())

    def scores(self, outputs: Sequence[FloatArray]) -> dict[str, FloatArray]:
        """Return loss and metrics (C,) of C outputs (n, R), called as in `cells`."""
        problem, stacked = self._problem, np.stack(outputs)
        residuals = stacked - problem.eval_targets.reshape(stacked.shape[1:])
        loss = np.einsum("cnr,cnr->c", residuals, residuals) / (2 * stacked.shape[1])
        return {"eval_loss": loss, **problem.metrics("eval", stacked)}


def _combine(
    examples: _Examples, trained: Mapping[str, Mapping[Side, Displacement]], planned: Sequence[Combined]
) -> dict[str, FloatArray]:
    """Return all columns (C,) of one cell on the examples of one task."""
    ends = {side: examples.outputs(trained["trained"][side]) for side in SIDES}
    linearized_ends = {side: examples.linearized_outputs(trained["linearized"][side]) for side in SIDES}
    nonlinear, linearized, gaps = [], [], []
    for each in planned:
        first, second, weights = each.first, each.second, weights_of(each.operation, each.coefficient)
        displacements = trained["trained"]
        nonlinear.append(examples.outputs(combined(displacements[first], displacements[second], weights)))
        expected = combined_outputs(examples.initial, ends[first], ends[second], weights)
        gaps.append(linearity_gap(nonlinear[-1], expected))
        of_linear = (linearized_ends[first], linearized_ends[second])
        linearized.append(combined_outputs(examples.initial, *of_linear, weights))
    scores = {"finetune": examples.scores(nonlinear), "linearized": examples.scores(linearized)}
    columns = {f"{model}_{name}": values for model, each in scores.items() for name, values in each.items()}
    return columns | {"linearity_gap": np.array(gaps)}


def _displacements(stage: Stage[CombineParameters], work: Work, model: str, cell: int) -> dict[Side, Displacement]:
    """Return the displacements of one cell after training on each task, by side."""
    found: dict[Side, Displacement] = {}
    for side in SIDES:
        run = stage.parameters.of(side).run if model == "trained" else 0
        found[side] = TrainedCells(work.input(stage, f"{model}.{side}"), run).displacement(cell)
    return found
