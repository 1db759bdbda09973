"""Examples of specs and of cluster profiles, which come with the package."""

import difflib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from orchestrator.errors import SpecError
from orchestrator.spec.reading import parse_spec

_FOLDER = "examples"
_PROFILES = "profiles"


def example_names() -> list[str]:
    """Return the names of all examples, specs first."""
    return [*_found(), *_found(_PROFILES)]


def is_profile(name: str) -> bool:
    """Tell whether an example is a cluster profile."""
    return name in _found(_PROFILES)


def example_text(name: str) -> str:
    """Return an example as it is written.

    Raises:
        SpecError: there is none of that name; lists those that exist.
    """
    found = {**_found(), **_found(_PROFILES)}
    if name not in found:
        nearest = difflib.get_close_matches(name, found, n=1, cutoff=0.5)
        hint = f"did you mean `{nearest[0]}`? " if nearest else ""
        raise SpecError(f"there is no example `{name}`; {hint}there are: {', '.join(found)}")
    return found[name].read_text(encoding="utf-8")


def missing_sources(text: str, path: Path) -> Iterator[tuple[str, str]]:
    """Yield each key of a spec that names a file or folder which is not there, and that name.

    Args:
        text: the spec.
        path: the file in which it lies.
    """
    spec = parse_spec(text, name=str(path))
    tasks = {f"grid.tasks.{name}.data": task.data for name, task in (spec.grid.tasks or {}).items()}
    for key, place in {"model.path": spec.model.path, **(tasks or {"task.data": spec.task.data})}.items():
        if place.startswith("data/") and not (path.parent / place).exists():
            yield key, place


@cache
def _found(folder: str = "") -> dict[str, Traversable]:
    root: Traversable = files("orchestrator") / _FOLDER
    if not root.is_dir():  # a checkout, in which they are beside the packages
        root = Path(__file__).parents[2] / _FOLDER
    return {
        Path(file.name).stem: file
        for file in sorted((root / folder).iterdir(), key=lambda file: file.name)
        if file.name.endswith(".yaml")
    }
