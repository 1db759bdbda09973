"""Notes about the examples of a plan, which are shown beside its costs."""

from orchestrator.plan.plan import Plan
from orchestrator.sweep.variant import Variant


def data_notes(plan: Plan) -> list[str]:
    """Return a sentence for repeated texts and for classes without examples, of each task."""
    found = (f"{variant.choice.task}: {note}" if variant.choice.task else note
             for variant in plan.variants for note in _notes(variant))  # fmt: skip
    return list(dict.fromkeys(found))


def _notes(variant: Variant) -> list[str]:
    survey, notes = variant.survey, []
    if survey.repeats_train:
        notes.append(
            f"{survey.repeats_train} of {survey.pool_train} examples of split {variant.sweep.spec.task.train_split} "
            "have a text that an earlier one has"
            + (
                ", so that held-out evaluation examples may stand among the training examples (column eval_in_train); "
                "task.distinct_texts: true keeps each text once"
                if survey.shared_pool
                else "; task.distinct_texts: true keeps each text once"
            )
        )
    if survey.repeats_eval:
        notes.append(
            f"{survey.repeats_eval} of {survey.pool_eval} evaluation examples have a text that an earlier one has"
        )
    if survey.shared_texts:
        notes.append(
            f"{survey.shared_texts} of {survey.pool_eval} evaluation examples have a text of the training split "
            "(column eval_in_train says how many were trained on); task.distinct_texts: true takes those out of it"
        )
    if empty := [label for label, size in enumerate(survey.class_sizes) if not size]:
        listed = ", ".join(map(str, empty[:8])) + (", ..." if len(empty) > 8 else "")
        notes.append(f"no training example has label {listed}: nothing is learned of it")
    return notes
