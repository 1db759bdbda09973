"""A check, before anything runs, that the data has enough examples of each class for balanced sampling."""

from orchestrator.errors import SpecError
from orchestrator.spec import Spec
from orchestrator.sweep.survey_facts import Survey
from orchestrator.sweep.trained_examples import trained_examples


def check_balance_against(spec: Spec, survey: Survey) -> None:
    """Check the training-set sizes of a spec that samples equally many examples of each class.

    Held-out evaluation examples are drawn first, at random: they may leave a class with too few, which only the stage
    `dataset` of the seed can see.

    Raises:
        SpecError: a size is not a multiple of the number of classes, or a class has too few training examples.
    """
    if spec.task.sampling != "balanced":
        return
    from finetune.data.sampling import check_balance
    from finetune.errors import SamplingError

    sizes = [("grid.n_train", n_train) for n_train in spec.grid.n_train]
    n_trained = trained_examples(spec, survey)
    if n_trained is not None:
        sizes.append(("finetune.n_train", n_trained))
    for key, n_train in sizes:
        try:
            check_balance(n_train, survey.n_outputs)
        except SamplingError as error:
            raise SpecError(str(error), key=key) from error
    key, largest = max(sizes, key=lambda each: each[1])
    each = largest // survey.n_outputs
    for label, size in enumerate(survey.class_sizes):
        if size < each:
            names = [f'"{name}"' for name, of in survey.labels if of == label]
            title = " ".join([str(label), " or ".join(names)]) if names else str(label)
            raise SpecError(
                f"the data has too few examples of class {title}: task.sampling: balanced and "
                f"{key} {largest} need {each}, and there are {size}; lower {key}",
                key=key,
            )
