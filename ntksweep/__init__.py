"""Sweeps of regularization strengths and layer choices of fine-tuning, through the neural tangent kernel.

>>> import ntksweep
>>> results = ntksweep.run("sweep.yaml")  # doctest: +SKIP
>>> results.cells.to_pandas()  # doctest: +SKIP
>>> results.plot.lambda_path()  # doctest: +SKIP

The names of a sweep's user; those of its mathematics, models and jobs are in `ntk_dist`, `finetune` and `slurm`. Each
name loads its module when it is first used.
"""

import logging
import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.api.results import Results, Run, load
    from orchestrator.api.running import plan_sweep as plan
    from orchestrator.api.running import run_sweep as run
    from orchestrator.engine.schedule import Failure, Progress, Report
    from orchestrator.errors import SweepError
    from orchestrator.plan.plan import Plan
    from orchestrator.results.loading import Table
    from orchestrator.spec.model import Spec
    from orchestrator.spec.reading import make_spec, parse_spec, read_spec
    from orchestrator.sweep.on_change import OnChange

    __version__: str

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
    "plan",
    "read_spec",
    "run",
]

_SHORTER = {"plan": "plan_sweep", "run": "run_sweep"}
"""Names of `orchestrator` that are shorter here."""

logging.getLogger(__name__).addHandler(logging.NullHandler())  # a program that imports it decides what is shown


def refuse_hidden_packages() -> None:
    """Check that Python finds the packages of ntksweep, and not files of the user that have the name of one.

    Raises:
        ImportError: names the file that hides one of them.
    """
    try:
        from orchestrator.hidden_packages import hidden
    except ImportError:
        found = getattr(sys.modules.get("orchestrator"), "__file__", None) or "something"
        raise ImportError(
            f"{found} hides the package `orchestrator` of ntksweep: Python looks for modules in its folder first; "
            "rename it, or run in another folder"
        ) from None
    if message := hidden():
        raise ImportError(message)


if not TYPE_CHECKING:  # or a type checker would believe that any name is here

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        refuse_hidden_packages()
        found = globals()[name] = getattr(import_module("orchestrator"), _SHORTER.get(name, name))
        return found


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
