"""Errors that are found once a spec has been read, with the line of the key whose value is the cause."""

from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.errors import OfSpecError
from orchestrator.spec.model import Spec


@contextmanager
def naming_lines(spec: Spec) -> Iterator[None]:
    """Give the errors that are raised inside this context and name a key of the spec the place of that key."""
    try:
        yield
    except OfSpecError as error:
        if error.key and not error.place:
            of_task = error.key.replace("task.", f"grid.tasks.{error.task}.", 1)
            if error.task and error.key.startswith("task.") and spec.lines.has(of_task):
                error.key = of_task
            error.place = spec.lines.before(error.key)
        raise
