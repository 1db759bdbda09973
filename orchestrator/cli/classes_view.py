"""The classes of a plan's tasks, and their balance."""

from collections.abc import Iterator
from typing import Any

from finetune.data.left_out import LeftOut
from orchestrator.cli.misspelled_labels import misspelled_said
from orchestrator.plan.plan import Plan
from orchestrator.sweep.survey_facts import Survey
from orchestrator.sweep.variant import Variant

MOST_LISTED = 10
"""Classes up to which all are listed."""

FEWEST_TO_DRAW = 3
"""Examples of a class from which on larger training sets help to draw one and leave one to evaluate."""

LONGEST_NAME = 40
"""Characters of a label that are shown."""


def classes_facts(survey: Survey) -> list[dict[str, Any]]:
    """Return each class with its labels, if they are names, and its examples in both pools."""
    return [
        {"class": of, "labels": names_of(survey, of), "train": train, "evaluation": evaluation}
        for of, (train, evaluation) in enumerate(zip(survey.class_sizes, survey.evaluation_sizes, strict=True))
    ]


def names_of(survey: Survey, of: int) -> list[str]:
    """Return the labels of a class by their names; none where labels are numbers."""
    return [name for name, of_label in survey.labels if of_label == of]


def short(name: str) -> str:
    """Return a label on one line, cut if it is long."""
    name = " ".join(name.split())
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."


def titled(survey: Survey, of: int) -> str:
    """Return a class for people: its number, and its labels in quotation marks if they are names."""
    if names_of(survey, of) == [str(of)]:
        return str(of)
    names = [f'"{short(name)}"' for name in names_of(survey, of)]
    return " ".join([str(of), " or ".join(names)]) if names else str(of)


def classes_said(plan: Plan) -> list[str]:
    """Return lines that say which classes each task has, and how many examples each of them has."""
    said = (
        (variant.choice.task, line)
        for variant in plan.variants
        for line in (*_of_variant(variant), *left_out_said(variant.survey.left_out))
    )
    found = (f"{task}: {line}" if task else line for task, line in said)
    return list(dict.fromkeys(found))


def _of_variant(variant: Variant) -> Iterator[str]:
    survey, task = variant.survey, variant.sweep.spec.task
    sizes, total = survey.class_sizes, sum(survey.class_sizes)
    if not total:
        return
    where = f"the {total:,} examples of split {task.train_split}"
    counted = [f"{size:,} of class {titled(survey, of)} ({_share(size, total)})" for of, size in enumerate(sizes)]
    if len(sizes) > MOST_LISTED:
        ascending = sorted(range(len(sizes)), key=sizes.__getitem__)
        few, many = (", ".join(counted[of] for of in part) for part in (ascending[:3], ascending[:-4:-1]))
        yield f"{len(sizes)} classes among {where}; the largest: {many}; the smallest: {few}"
    else:
        yield f"classes among {where}: {', '.join(counted)}"
    if said := misspelled_said(survey.labels, occurrences(survey)):
        yield said
    smallest = min((size for size in sizes if size), default=0)
    n_train = min(variant.sweep.spec.grid.n_train)
    if task.sampling == "random" and n_train * smallest < total:
        rare = titled(survey, sizes.index(smallest))
        enough = len(sizes) <= n_train <= smallest * len(sizes)
        advice = "task.sampling: balanced draws as many of each class" if enough else _advice(smallest, rare, total)
        yield (
            f"{n_train} training examples have {n_train * smallest / total:.1g} of class {rare} on average, so that a "
            f"seed may draw none; {advice}"
        )


def left_out_said(left_out: LeftOut) -> Iterator[str]:
    """Yield a line with the rows that are left out and why; none where all are examples."""
    labels = [
        f'{count:,} with label "{short(name)}"' if name else f"{count:,} with no label"
        for name, count in left_out.labels[:MOST_LISTED]
    ]
    blank = [f"{left_out.blank:,} with a blank text"] if left_out.blank else []
    repeated = [f"{left_out.repeated:,} with a text that another one has"] if left_out.repeated else []
    if said := [*labels, *blank, *repeated]:
        yield f"rows left out: {', '.join(said)}"


def _advice(size: int, rare: str, total: int) -> str:
    """Return what helps where a training set may have no example of the smallest class."""
    if size >= FEWEST_TO_DRAW:
        return "raise grid.n_train"
    return (
        f"there {'is one such example' if size == 1 else f'are {size} such examples'} among {total:,}, which no larger "
        f"grid.n_train helps: give class {rare} more, another class or null in task.labels"
    )


def occurrences(survey: Survey) -> tuple[int, ...]:
    """Return the number of examples of each class in all pools; empty for regression."""
    if survey.shared_pool:
        return survey.class_sizes
    return tuple(map(sum, zip(survey.class_sizes, survey.evaluation_sizes, strict=True)))


def _share(size: int, total: int) -> str:
    percent = 100 * size / total
    return "under 1 %" if 0 < percent < 1 else f"{percent:.0f} %"
