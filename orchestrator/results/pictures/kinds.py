"""All kinds of pictures, in the order of a page."""

import difflib
from collections.abc import Callable, Iterator
from types import ModuleType

from orchestrator.errors import ResultsError
from orchestrator.results.pictures import (
    additions,
    correlations,
    costs,
    densities,
    difference,
    heatmap,
    kernel_numbers,
    lambda_path,
    models,
    spectra,
    trajectories,
)
from orchestrator.results.pictures.measured import Measured
from orchestrator.results.pictures.picture import Missing, Picture
from orchestrator.results.usual_names import simplified

_MODULES: tuple[ModuleType, ...] = (
    lambda_path,
    heatmap,
    models,
    kernel_numbers,
    correlations,
    difference,
    trajectories,
    spectra,
    densities,
    additions,
    costs,
)

MAKERS: dict[str, Callable[[Measured], Picture | Missing]] = {module.KIND: module.picture for module in _MODULES}
"""What makes each kind of picture, by its name on the command line."""


def picture_named(kind: str, measured: Measured) -> Picture:
    """Return one picture of a sweep.

    Raises:
        ResultsError: there is no such kind, or the sweep has no such picture; says why.
    """
    plain = simplified(kind).replace("_", "-")
    kind = plain if plain in MAKERS else kind
    if kind not in MAKERS:
        nearest = difflib.get_close_matches(kind, MAKERS, n=1)
        guess = f"; did you mean `{nearest[0]}`?" if nearest else ""
        raise ResultsError(f"there is no picture `{kind}`{guess} There are: {', '.join(MAKERS)}")
    found = MAKERS[kind](measured)
    if isinstance(found, Missing):
        raise ResultsError(f"the sweep has no picture `{kind}`. {found.why}")
    return found


def all_pictures(measured: Measured) -> Iterator[Picture | Missing]:
    """Yield every kind of picture of a sweep, or why it has none."""
    yield from (make(measured) for make in MAKERS.values())
