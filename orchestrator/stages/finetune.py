"""The stage `finetune`: trains the cells of some lambdas side by side, the model itself or its linearization."""

import numpy as np

from finetune.training.loop import train
from finetune.training.run import TrainingRun
from finetune.updates import group_updates
from orchestrator.stage import Stage
from orchestrator.stages.problem import load_problem
from orchestrator.stages.training_inputs import TrainingInputs
from orchestrator.stages.work import Product, Work
from orchestrator.store.arrays import Array

_SEEN = ("train_outputs", "eval_outputs", "distances", "pulled")


def compute(stage: Stage, work: Work) -> Product:
    """Train S cells, looked at K times.

    The artifact holds `steps` (K,); `train_outputs` (K, S, n, R), `eval_outputs` (K, S, m, R), `distances` and `pulled`
    (K, S) as `finetune.training.run.Trajectory` has them; what was observed, `observed.<name>` (K, S); `kept` (S,), the
    look whose weights a cell ends with; `lambda` (S,), absolute; `update_norm` and `weight_norm` (S, groups); the
    displacement of each cell, `<cell>.<parameter>`; and, where the kernel is followed, `curvature` and
    `linearization_error` (S,) of `finetune.training.smoothness`. The facts hold how each cell ended.
    """
    inputs = TrainingInputs(stage, work, load_problem(stage, work))
    lambdas, n_examples = inputs.lambdas(), stage.parameters["kernel_examples"]
    nonlinear = stage.parameters["model"] == "nonlinear"
    run = train(
        inputs.model(len(lambdas)) if nonlinear else inputs.linearization(len(lambdas)),
        inputs.targets(),
        inputs.settings,
        lambdas,
        seed=stage.parameters["seed"],
        checkpoint=work.checkpoint(stage),
        observer=inputs.kernel_change(n_examples) if n_examples else None,
        at_once=work.halved(inputs.settings.batch_examples),
    )
    curved = [inputs.smoothness(n_examples, cell.kept) for cell in run.cells if n_examples]
    updates = [group_updates(inputs.scorer, cell.kept, inputs.trained) for cell in run.cells]
    arrays: dict[str, Array] = {
        "lambda": np.array(lambdas),
        "kept": np.array([cell.kept_record for cell in run.cells]),
        "update_norm": np.array([[update.update_norm for update in each] for each in updates]),
        "weight_norm": np.array([[update.weight_norm for update in each] for each in updates]),
        **_trajectory(run),
        **_displacements(run),
    }
    if curved:
        arrays["curvature"] = np.array([each.curvature for each in curved])
        arrays["linearization_error"] = np.array([each.linearization_error for each in curved])
    facts = {
        "status": [cell.status.value for cell in run.cells],
        "failed_step": [cell.failed_step for cell in run.cells],
        "learning_rate": inputs.settings.learning_rate,
    }
    return Product(facts, work.write_arrays(stage, arrays))


def _trajectory(run: TrainingRun) -> dict[str, Array]:
    seen = run.trajectory
    arrays = {name: np.stack(getattr(seen, name)) for name in _SEEN}
    observed = {f"observed.{name}": np.stack(values) for name, values in seen.observed.items()}
    return {"steps": np.array(seen.steps), **arrays, **observed}


def _displacements(run: TrainingRun) -> dict[str, Array]:
    return {
        f"{number}.{name}": tensor.numpy()
        for number, cell in enumerate(run.cells)
        for name, tensor in cell.kept.items()
    }
