"""Whether a sweep that is asked for has the numbers of the one in a results folder."""

import re
from typing import TYPE_CHECKING, Any

from orchestrator.errors import SweepError
from orchestrator.store.artifacts import ArtifactStore

if TYPE_CHECKING:
    from orchestrator.sweep.folder import Sweep


def comparable(stored: "Sweep", given: "Sweep", *, training: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values that fix the numbers of two sweeps, without the parts that only one of them has in its grid.

    Tasks, ranks and learning rates may be added to a sweep or removed, as lambdas may; tasks of both are compared.
    """
    numbers = [sweep.numbers(training=training) for sweep in (stored, given)]
    grids = [sweep.spec.grid for sweep in (stored, given)]
    on_grid = []
    if any(grid.ranks for grid in grids):
        on_grid.append("adapter.rank")
    if any(grid.learning_rates for grid in grids):
        on_grid.append("finetune.learning_rate")
    if all(grid.tasks for grid in grids):
        before, now = (set(grid.tasks or ()) for grid in grids)
        on_grid += [f"task.{name}" for name in before ^ now]
    elif any(grid.tasks for grid in grids):
        on_grid.append("task")

    def fixed(name: str) -> bool:
        return not any(name == axis or name.startswith(f"{axis}.") for axis in on_grid)

    stored_numbers, given_numbers = ({name: value for name, value in each.items() if fixed(name)} for each in numbers)
    return stored_numbers, given_numbers


def same_but_for_written_labels(stored: "Sweep", given: "Sweep", store: ArtifactStore, *, training: bool) -> bool:
    """Tell whether two sweeps differ in the written `task.labels` alone, and each label has one class in both."""
    from orchestrator.sweep.survey import surveys

    others = [
        {
            name: value
            for name, value in each.items()
            if not re.fullmatch(r"task\.(.*\.)?labels(\..*)?", name, re.DOTALL)
        }
        for each in comparable(stored, given, training=training)
    ]
    if others[0] != others[1]:
        return False
    try:
        before, now = ([dict(survey.labels) for survey in surveys(each, store)] for each in (stored, given))
    except SweepError:  # what is wrong with the given one is said when it is planned
        return False
    return before == now
