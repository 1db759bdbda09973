"""The stage `smoothness`: Hessians of outputs at theta_0 + r v, and at the weights of trained cells."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from finetune.training.smoothness import HessianNorms, by_group, hessian_norms_at, random_direction
from ntk_dist.arrays import FloatArray
from orchestrator.stages.context.problem import load_problem
from orchestrator.stages.context.work import Product, Work
from orchestrator.stages.finetune.trained_cells import TrainedCells
from orchestrator.stages.finetune.training_inputs import TrainingInputs
from orchestrator.stages.smoothness import SmoothnessParameters, run_of
from orchestrator.store.stage import Stage


def compute(stage: Stage[SmoothnessParameters], work: Work) -> Product:
    """Measure the Hessians at all radii of the stage, and then at the weights that S cells end with.

    The artifact holds for all of them together `distance`, `hessian_norm_max`, `hessian_norm_mean` and
    `hessian_residual`, each (radii + S,). One direction v, which the seed of the grid draws, serves all radii.
    """
    p, run = stage.parameters, run_of(stage)
    inputs = TrainingInputs(run, work, load_problem(run, work), ["eval"])
    trained = inputs.modules(inputs.trained)
    scores = [inputs.score(np.array([example]), "eval") for example in range(p.examples)]
    direction = random_direction(trained, p.compared.cells.seed)
    cells = TrainedCells(work.input(stage, "trained"), p.compared.run)
    displacements: list[dict[str, Tensor]] = [
        *({group: radius * vector for group, vector in direction.items()} for radius in p.radii),
        *(by_group(trained, cells.displacement(cell)) for cell in range(len(p.compared.cells.lambdas))),
    ]
    found = [hessian_norms_at(scores, trained, displacement) for displacement in displacements]
    distances = np.array([_norm(displacement) for displacement in displacements])
    return Product({}, work.write_arrays(stage, {"distance": distances, **_columns(found)}))


def _columns(found: Sequence[HessianNorms]) -> dict[str, FloatArray]:
    """Return the columns of several points."""
    return {
        "hessian_norm_max": np.array([each.norms.max() for each in found]),
        "hessian_norm_mean": np.array([each.norms.mean() for each in found]),
        "hessian_residual": np.array([each.residuals.max() for each in found]),
    }


def _norm(displacement: dict[str, Tensor]) -> float:
    return float(np.sqrt(sum(float(vector.double().square().sum()) for vector in displacement.values())))
