"""Files of users that hide a package of ntksweep, because they have its name and Python finds them first."""

import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from pathlib import Path

PACKAGES = ("finetune", "ntk_dist", "slurm", "orchestrator")

_ROOT = Path(__file__).resolve().parent.parent


def hiding_file(package: str, before: Sequence[str] = ()) -> Path | None:
    """Return the file, or the folder, that Python takes for a package of ntksweep; None if it takes the package.

    Args:
        package: its name.
        before: folders in which it looks before those of this process.
    """
    loaded = None if before else sys.modules.get(package)
    spec = (loaded and loaded.__spec__) or PathFinder.find_spec(package, [*before, *sys.path])
    if spec is None:  # an editable installation has a finder of its own
        return None
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or [])
    for place in map(Path, places):
        if place.resolve() not in (_ROOT / package / "__init__.py", _ROOT / package):
            return place
    return None


def hidden(before: Sequence[str] = ()) -> str:
    """Return the message about a file that hides a package of ntksweep; empty if none does.

    Args:
        before: as for `hiding_file`.
    """
    for package in PACKAGES:
        if (found := hiding_file(package, before)) is not None:
            return f"{found} hides the package `{package}` of ntksweep: {_why(found, before)}"
    return ""


def _why(found: Path, before: Sequence[str]) -> str:
    if str(found.parent) in before:
        return (
            "worker processes look for modules in the current folder first; rename it, run in another folder, or set "
            "compute.executor: inline"
        )
    return "Python looks for modules in its folder first; rename it, or run in another folder"
