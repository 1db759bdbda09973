"""Checks of installed packages and of their versions."""

import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement
from packaging.version import Version

from orchestrator.errors import OutdatedError

OLDEST_PYTHON = (3, 11)


def refuse_what_is_too_old(
    python: tuple[int, ...] = tuple(sys.version_info[:3]), installed: Callable[[str], str] = version
) -> None:
    """Raise an error if Python or torch is older than ntksweep needs.

    Args:
        python: version of Python.
        installed: returns the version of an installed package.

    Raises:
        OutdatedError: names what is too old and what to install.
    """
    if python[:2] < OLDEST_PYTHON:
        oldest, found = ".".join(map(str, OLDEST_PYTHON)), ".".join(map(str, python))
        raise OutdatedError(f"ntksweep needs Python {oldest} or newer, this is {found}; make a new virtual environment")
    torch = next(requirement for requirement in requirements() if requirement.name == "torch")
    if problem := shortfall(torch, installed):
        raise OutdatedError(f"{problem}; pip install '{torch}'")


def refuse_missing_deepspeed(installed: Callable[[str], str] = version) -> None:
    """Raise an error if DeepSpeed, which shards models, is missing or too old.

    Args:
        installed: returns the version of an installed package.

    Raises:
        OutdatedError: names what to install.
    """
    listed = [requirement for requirement in requirements("sharded") if requirement.name == "deepspeed"]
    deepspeed = listed[0] if listed else Requirement("deepspeed")
    if problem := shortfall(deepspeed, installed):
        raise OutdatedError(f"{problem}, and the section `sharding` needs it: pip install 'ntksweep[sharded]'")


def requirements(extra: str = "") -> list[Requirement]:
    """Return the requirements of ntksweep, or those that one of its extras adds."""
    listed = [Requirement(line) for line in requires("ntksweep") or []]
    if not extra:
        return [requirement for requirement in listed if requirement.marker is None]
    return [r for r in listed if r.marker is not None and r.marker.evaluate({"extra": extra})]


def shortfall(requirement: Requirement, installed: Callable[[str], str] = version) -> str | None:
    """Return the fault of the installed version of a package; None if it meets the requirement."""
    try:
        found = installed(requirement.name)
    except PackageNotFoundError:
        return f"{requirement.name} is not installed"
    if not requirement.specifier.contains(Version(found), prereleases=True):
        return f"{requirement.name} {found} is installed, ntksweep needs {requirement.specifier}"
    return None
