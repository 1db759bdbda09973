"""The stage `compare`: results of training, the predictions of the linearization, and the distances between them."""

import numpy as np

from finetune.analysis.difference import output_difference
from finetune.settings import TaskKind
from ntk_dist.arrays import FloatArray
from orchestrator.stages.compare import CompareParameters
from orchestrator.stages.compare.bounds import ProvenBounds
from orchestrator.stages.compare.trained_run import TrainedRun, fill
from orchestrator.stages.context.problem import load_problem
from orchestrator.stages.context.work import Product, Work
from orchestrator.stages.finetune.trained_cells import TrainedCells
from orchestrator.store.stage import Stage


def compute(stage: Stage[CompareParameters], work: Work) -> Product:
    """Return the numbers of S cells after training and at K evaluations during it.

    They are called as the columns of the tables: `cells.<column>` (S,), `trajectories.<column>` (K, S) and
    `updates.<column>` (S, groups). A cell's own numbers are those of the weights that it ends with. The K evaluations
    are those of the model that was trained longest; `evaluations` (S,) says how many of them a cell has, of one model
    or both. Numbers of a model that had ended before are nan, and so are differences of two models then.

    Raises:
        BrokenBoundError: the weights are further from the pretrained ones than is possible.
    """
    problem = load_problem(stage, work)
    training = stage.parameters.cells.training
    artifacts = {
        "finetune": TrainedCells(work.input(stage, "trained"), stage.parameters.run),
        "linearized": TrainedCells(work.input(stage, "linearized"), 0),
    }
    runs = {name: TrainedRun(problem, trained, training) for name, trained in artifacts.items()}
    longest = max(runs.values(), key=lambda run: len(run.steps))
    n_evaluations = len(longest.steps)
    initial = runs["finetune"].outputs
    first = {split: values[0, 0] for split, values in initial.items()}

    trajectories: dict[str, FloatArray] = {}
    cells: dict[str, FloatArray] = {}
    for name, run in runs.items():
        trajectories |= {f"{name}_{column}": values for column, values in run.trajectory(n_evaluations).items()}
        cells |= {f"{name}_{column}": values for column, values in run.cells().items()}
    kind = stage.parameters.problem.task_kind
    for split in ("train", "eval"):
        apart = _differences(runs["finetune"], runs["linearized"], split, kind, n_evaluations)
        trajectories |= {f"difference_{split}_{column}": values for column, values in apart.items()}
        f, f_lin = (run.ended(split) for run in runs.values())
        ended = output_difference(f, f_lin, first[split], kind=kind)
        cells |= {f"difference_{split}_{column}": values for column, values in ended.items()}
    bounds = ProvenBounds(runs["finetune"], training)
    trajectories["finetune_distance_bound"] = bounds.distances(n_evaluations)
    cells["finetune_distance_bound"] = bounds.distance()
    cells |= _linearization(runs["finetune"], cells["finetune_distance"], bounds)
    arrays = {f"cells.{name}": values for name, values in cells.items()}
    arrays |= {f"trajectories.{name}": values for name, values in trajectories.items()}
    weight_norm = runs["finetune"].trained.array("weight_norm")
    arrays |= {"updates.weight_norm": weight_norm}
    for name, run in runs.items():
        # A head outside the kernel is trained beside the layer set, last; the linearization leaves it where it is.
        still = np.zeros((len(weight_norm), weight_norm.shape[1] - run.updates.shape[1]))
        arrays[f"updates.{name}_update_norm"] = np.concatenate([run.updates, still], axis=1)
    evaluations = np.maximum(*(run.evaluations for run in runs.values()))
    arrays |= {"steps": longest.steps, "evaluations": evaluations}
    facts = {f"{name}_status": run.trained.facts["status"] for name, run in runs.items()}
    return Product(facts, work.write_arrays(stage, arrays))


def _differences(
    nonlinear: TrainedRun, linearized: TrainedRun, split: str, kind: TaskKind, n_evaluations: int
) -> dict[str, FloatArray]:
    """Return the distances between the two models' outputs, (K, S) each; nan where one of them had ended."""
    found: dict[str, FloatArray] = {}
    for evaluation in range(n_evaluations):
        both = nonlinear.seen(evaluation) & linearized.seen(evaluation)
        if both.any():
            f, f_lin = (run.outputs[split][evaluation, both] for run in (nonlinear, linearized))
            apart = output_difference(f, f_lin, nonlinear.outputs[split][0, 0], kind=kind)
            fill(found, apart, evaluation, both, n_evaluations)
    return found


def _linearization(run: TrainedRun, distance: FloatArray, bounds: ProvenBounds) -> dict[str, FloatArray]:
    """Return the terms of Taylor's formula for the outputs of a few examples; empty where they were not followed."""
    if "curvature" not in run.trained.names():
        return {}
    curvature = run.trained.array("curvature")
    return {
        "finetune_curvature": curvature,
        "finetune_linearization_error": run.trained.array("linearization_error"),
        "finetune_linearization_bound": curvature / 2 * distance**2,
        "finetune_linearization_limit": bounds.linearization(curvature),
    }
