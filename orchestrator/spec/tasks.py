"""Complete tasks of a spec: each takes the keys that it does not set from the section `task`."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from orchestrator.spec.sections import TaskSection

_REQUIRED = {"data": "data", "kind": "classification", "n_eval": 1}
"""Placeholder for a section that is checked by itself; a spec that needs the placeholder has a fault elsewhere."""


def with_whole_tasks(data: Any) -> Any:
    """Return the content of a spec whose tasks in `grid.tasks` have all their keys, and `task` those of the first.

    Faults are left for the check of the sections, so that each is reported once and in its place: a fault of `task` is
    reported there, and not again for each task that takes keys from it.
    """
    if not isinstance(data, dict) or not isinstance(data.get("grid"), dict):
        return data
    shared, tasks = data.get("task") or {}, data["grid"].get("tasks")
    mappings = [shared, tasks, *(tasks.values() if isinstance(tasks, dict) else ())]
    if not tasks or not all(isinstance(each, dict) for each in mappings):
        return data
    alone = {**_REQUIRED, **shared}
    whole = {name: {**(shared if _is_valid(alone) else _REQUIRED), **own} for name, own in tasks.items()}
    first = next(iter(whole.values()))
    task = first if _is_valid(alone) and _is_valid(first) else alone
    return {**data, "task": task, "grid": {**data["grid"], "tasks": whole}}


def _is_valid(section: Mapping[str, Any]) -> bool:
    try:
        TaskSection.model_validate(section)
    except ValidationError:
        return False
    return True
