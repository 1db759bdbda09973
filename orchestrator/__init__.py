"""Sweeps: specs, plans, runs and results.

What a program may rely on is in `__all__`, and in the package `ntksweep` under shorter names; each name loads its
module when it is first used.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING

from orchestrator.version import VERSION

if TYPE_CHECKING:
    from orchestrator.api.results import Results, Run, load
    from orchestrator.api.running import plan_sweep, run_sweep
    from orchestrator.engine.schedule import Failure, Progress, Report
    from orchestrator.errors import SweepError
    from orchestrator.plan.plan import Plan
    from orchestrator.results.loading import Table
    from orchestrator.spec.model import Spec
    from orchestrator.spec.reading import make_spec, parse_spec, read_spec
    from orchestrator.sweep.on_change import OnChange

__all__ = [
    "Failure",
    "OnChange",
    "Plan",
    "Progress",
    "Report",
    "Results",
    "Run",
    "Spec",
    "SweepError",
    "Table",
    "__version__",
    "load",
    "make_spec",
    "parse_spec",
    "plan_sweep",
    "read_spec",
    "run_sweep",
]

_MODULES = {
    "plan_sweep": "orchestrator.api.running",
    "run_sweep": "orchestrator.api.running",
    "Failure": "orchestrator.engine.schedule",
    "Progress": "orchestrator.engine.schedule",
    "Report": "orchestrator.engine.schedule",
    "SweepError": "orchestrator.errors",
    "Plan": "orchestrator.plan.plan",
    "Results": "orchestrator.api.results",
    "Run": "orchestrator.api.results",
    "Table": "orchestrator.results.loading",
    "load": "orchestrator.api.results",
    "Spec": "orchestrator.spec.model",
    "make_spec": "orchestrator.spec.reading",
    "parse_spec": "orchestrator.spec.reading",
    "read_spec": "orchestrator.spec.reading",
    "OnChange": "orchestrator.sweep.on_change",
}
"""The module of each public name."""

__version__ = VERSION

logging.getLogger(__name__).addHandler(logging.NullHandler())  # a program that imports it decides what is shown


if not TYPE_CHECKING:  # or a type checker would believe that any name is here

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(_MODULES[name]), name)
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
