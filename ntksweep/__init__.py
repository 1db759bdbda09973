"""Sweeps of regularization strengths and layer choices of fine-tuning, through the neural tangent kernel.

>>> import ntksweep
>>> ntksweep.load("results/quickstart").cells.to_pandas()  # doctest: +SKIP

The names of a sweep's user; those of its mathematics, models and jobs are in `ntk_dist`, `finetune` and `slurm`. Each
name loads its module when it is first used.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING

from orchestrator.version import VERSION

if TYPE_CHECKING:
    from orchestrator.api import plan_sweep as plan
    from orchestrator.api import run_sweep as run
    from orchestrator.engine.run import Ending
    from orchestrator.engine.schedule import Failure, Progress, Report
    from orchestrator.errors import SweepError
    from orchestrator.plan.plan import Plan
    from orchestrator.results.loading import Results, Table, load
    from orchestrator.spec.model import Spec
    from orchestrator.spec.reading import parse_spec, read_spec
    from orchestrator.sweep.on_change import OnChange

__all__ = [
    "Ending",
    "Failure",
    "OnChange",
    "Plan",
    "Progress",
    "Report",
    "Results",
    "Spec",
    "SweepError",
    "Table",
    "__version__",
    "load",
    "parse_spec",
    "plan",
    "read_spec",
    "run",
]

__version__ = VERSION

_SHORTER = {"plan": "plan_sweep", "run": "run_sweep"}
"""Names of `orchestrator` that are shorter here."""

logging.getLogger(__name__).addHandler(logging.NullHandler())  # a program that imports it decides what is shown


if not TYPE_CHECKING:  # or a type checker would believe that any name is here

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module("orchestrator"), _SHORTER.get(name, name))
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
