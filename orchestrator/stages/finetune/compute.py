"""The stage `finetune`: trains the cells of some lambdas side by side, the model itself or its linearization."""

from finetune.training.loop import train
from orchestrator.stages.context.problem import load_problem
from orchestrator.stages.context.work import Product, Work
from orchestrator.stages.finetune.trained_cells import arrays_of, facts_of
from orchestrator.stages.finetune.training_inputs import TrainingInputs
from orchestrator.store.stage import Stage


def compute(stage: Stage, work: Work) -> Product:
    """Train S cells; the artifact holds the arrays of `arrays_of`, and the facts say how each cell ended."""
    inputs = TrainingInputs(stage, work, load_problem(stage, work))
    lambdas, n_examples = inputs.lambdas(), stage.parameters["kernel_examples"]
    nonlinear = stage.parameters["model"] == "nonlinear"
    run = train(
        inputs.model(len(lambdas)) if nonlinear else inputs.linearization(len(lambdas)),
        inputs.targets(),
        inputs.settings,
        lambdas,
        seed=inputs.seed,
        checkpoint=work.checkpoint(stage),
        observer=inputs.kernel_change(n_examples) if n_examples else None,
        at_once=work.halved(inputs.settings.batch_examples),
    )
    arrays = arrays_of(inputs, run, lambdas, n_examples)
    return Product(facts_of(run, inputs.settings.learning_rate), work.write_arrays(stage, arrays))
