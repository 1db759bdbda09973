"""The examples that cells are trained on, where they are others than the kernel's."""

from orchestrator.errors import SpecError
from orchestrator.spec import Spec
from orchestrator.sweep.survey_facts import Survey


def trained_examples(spec: Spec, survey: Survey) -> int | None:
    """Return how many examples cells are trained on; None for those of the kernel."""
    n_train = spec.finetune.n_train if spec.finetune else None
    if n_train != "all":
        return n_train
    return survey.pool_train - (spec.task.n_eval if survey.shared_pool else 0)


def check_trained_examples(spec: Spec, survey: Survey) -> None:
    """Check that the data has the examples that cells are trained on, and that they can be trained on them.

    Raises:
        SpecError: there are fewer, or the linearization would need rows of examples that the kernel does not have.
    """
    n_trained = trained_examples(spec, survey)
    if n_trained is None or spec.finetune is None:
        return
    needed = n_trained + (spec.task.n_eval if survey.shared_pool else 0)
    if needed > survey.pool_train:
        held_out = f" and task.n_eval {spec.task.n_eval}" if survey.shared_pool else ""
        raise SpecError(
            f"the data has too few examples: finetune.n_train {n_trained}{held_out} need more than the "
            f"{survey.pool_train} that can be used; lower it, or set finetune.n_train: all",
            key="finetune.n_train",
        )
    if {n_trained} == set(spec.grid.n_train):
        return
    if spec.finetune.linearization == "rows":
        raise SpecError(
            f"rows needs Jacobian rows of the {n_trained} examples of finetune.n_train, and "
            "the kernel has those of grid.n_train alone: set it to products, or leave it out",
            key="finetune.linearization",
        )
    if spec.is_sharded:
        raise SpecError(
            f"{n_trained} examples are more than the kernel has, so that the linearization is "
            "trained by products, which a model that is sharded (`sharding`) has not: leave out the key or the section",
            key="finetune.n_train",
        )
