"""Rows of the table `combinations`, from the artifacts of stages `combine`."""

from collections.abc import Iterator

from orchestrator.stages.base.tables import Rows
from orchestrator.stages.combine import planned
from orchestrator.stages.combine.combinations import SIDES
from orchestrator.stages.combine.planning import Combination
from orchestrator.stages.context.finished import Finished


def combinations_rows(finished: Finished) -> Iterator[Rows]:
    """Yield a row for each task to evaluate, combination and lambda, in this order.

    Raises:
        DamagedArtifactError: an artifact does not match its checksums.
    """
    variants = finished.plan.variants
    for combination in finished.filled(Combination):
        artifact = finished.artifact(combination.stage)
        choices = [variants[position].choice for position in (combination.variant, combination.other_variant)]
        tasks = dict(zip(SIDES, (str(choice.task) for choice in choices), strict=True))
        trained = combination.stage.parameters.a.cells.lambdas
        cells = [cell for cell, strength in enumerate(trained) if strength in finished.plan.lambdas]
        lambdas = [trained[cell] for cell in cells]
        rows = [(side, each, strength) for side in SIDES for each in planned(combination.stage) for strength in lambdas]
        spec = variants[combination.variant].sweep.spec
        columns = {
            "sweep": spec.name,
            "adapter_rank": spec.adapter.rank if spec.adapter.kind == "lora" else None,
            "learning_rate": spec.finetune.learning_rate if spec.finetune else None,
            "seed": combination.seed,
            "n_train": combination.n_train,
            "outputs": spec.kernel.outputs,
            "layer_set": combination.layer_set,
            "lambda_scale": spec.grid.lambdas.scale,
            "task_a": [tasks[each.first] for _, each, _ in rows],
            "task_b": [tasks[each.second] for _, each, _ in rows],
            "eval_task": [tasks[side] for side, _, _ in rows],
            "operation": [each.operation for _, each, _ in rows],
            "coefficient": [each.coefficient for _, each, _ in rows],
            "lambda_given": [strength for _, _, strength in rows],
        }
        numbers = {name: artifact.array(name)[..., cells].ravel() for name in artifact.names()}
        yield Rows(columns | numbers, len(rows))
