"""Choice of the variant of a sweep whose layers are selected, where its grid has several tasks or ranks."""

from collections.abc import Sequence
from typing import Any

from orchestrator.errors import SpecError
from orchestrator.spec import Spec
from orchestrator.sweep.choices import Choice, choices


def choose(spec: Spec, task: str | None, rank: int | None) -> int:
    """Return the position of the variant with that task and rank.

    Criteria of selection do not depend on training, so that learning rates make no difference.

    Args:
        spec: the spec of the sweep.
        task: name of a task of the grid; None where it has one.
        rank: rank of LoRA; None where the grid has one.

    Raises:
        SpecError: the grid has several and none was named, or it does not have the named one.
    """
    found = choices(spec)
    _check("--task", task, [choice.task for choice in found])
    _check("--rank", rank, [choice.rank for choice in found])
    return next(
        position for position, choice in enumerate(found) if task in (None, choice.task) and rank in (None, choice.rank)
    )


def cells_of(choice: Choice) -> dict[str, Any]:
    """Return the columns of `cells`, with their values, that tell the cells of a variant from those of others."""
    columns = {"task": choice.task, "adapter_rank": choice.rank, "learning_rate": choice.learning_rate}
    return {name: value for name, value in columns.items() if value is not None}


def _check(option: str, given: Any, there: Sequence[Any]) -> None:
    known = [value for value in dict.fromkeys(there) if value is not None]
    if given is not None and given not in known:
        having = f"it has {', '.join(map(str, known))}" if known else "it has one, which need not be named"
        raise SpecError(f"{option} {given}: the grid of the sweep does not name that; {having}")
    if given is None and len(known) > 1:
        raise SpecError(
            f"the sweep has several, and layers are selected for one: give {option} {' | '.join(map(str, known))}"
        )
