"""The programs of Ray that a run on one machine does without."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def without_spare_services() -> Iterator[None]:
    """Start Ray without the monitor of logs, the autoscaler and the dashboard's head while this context is open.

    Each is a Python process that takes half a second of a processor to load Ray, and nobody here asks it anything.
    `ray start` has options for two of them, `ray.init` has none. Where Ray has changed, it starts with all of them.
    """
    from ray._private import node, parameter

    changes: list[tuple[Any, str, Any]] = []
    made = getattr(parameter, "RayParams", None)
    if made is not None:
        spare = {"include_log_monitor": False, "no_monitor": True}
        if all(hasattr(made(), name) for name in spare):
            changes.append((parameter, "RayParams", lambda *given, **named: made(*given, **spare | named)))
    if hasattr(getattr(node, "Node", None), "start_api_server"):
        changes.append((node.Node, "start_api_server", lambda *_, **__: None))
    before = [(place, name, getattr(place, name)) for place, name, _ in changes]
    try:
        for place, name, value in changes:
            setattr(place, name, value)
        yield
    finally:
        for place, name, value in before:
            setattr(place, name, value)
