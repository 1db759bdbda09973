"""ntksweep: sweeps of regularization strengths and layer choices through the neural tangent kernel.

>>> import orchestrator
>>> orchestrator.load("results/quickstart").cells.to_pandas()  # doctest: +SKIP
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.version import VERSION

if TYPE_CHECKING:
    from orchestrator.results.loading import Results

__all__ = ["__version__", "load"]

__version__ = VERSION

logging.getLogger(__name__).addHandler(logging.NullHandler())  # a program that imports it decides what is shown


def load(path: str | Path) -> "Results":
    """Return the tables of the results folder at `path`: `.cells`, `.spectra`, `.predictions`.

    Raises:
        ResultsError: there are no results at `path`.
    """
    from orchestrator.results.loading import load as load_results

    return load_results(path)
