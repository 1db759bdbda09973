"""Arguments and options that several commands share."""

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.errors import SpecError
from orchestrator.sweep.on_change import OnChange

if TYPE_CHECKING:
    from orchestrator.sweep.folder import ResultsFolder

TRACEBACK = "--traceback"
"""An option of all commands, at any position."""

VERBOSE = re.compile("-v+|--verbose")
"""An option of all commands, at any position, and several times."""

TRUST = "--trust-remote-code"
"""The option that allows code that comes with a model; no file can replace it."""


def possible_path(path: Path | None) -> Path | None:
    """Return a path that the user gave; ~ is filled in where no shell has done it, as behind the = of an option.

    Raises:
        SpecError: no file can have that name.
    """
    if path is None or os.path.lexists(path):
        return path
    from orchestrator.spec.places import possible

    try:
        return Path(possible(str(path))).expanduser()
    except ValueError as error:
        raise SpecError(f"`{str(path)[:60]}`: {error}") from None


SpecArgument = Annotated[
    Path,
    typer.Argument(metavar="SPEC", help="The sweep's YAML file.", show_default=False, callback=possible_path),
]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Values for keys of the spec, as grid.seeds=[0,1]; they are checked and recorded as those of the file.",
        show_default=False,
    ),
]
FolderArgument = Annotated[
    Path,
    typer.Argument(
        metavar="FOLDER", help="A results folder, or a spec file.", show_default=False, callback=possible_path
    ),
]
OnChangeOption = Annotated[
    OnChange,
    typer.Option(help="If the results folder holds other numbers: refuse, keep the stored, or take the given ones."),
]
TrustOption = Annotated[
    bool,
    typer.Option(
        TRUST, help="Let Python code that comes with the model run, where model.trust_remote_code asks for it."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def results_folder(path: Path) -> "ResultsFolder":
    """Return the results folder that a `FolderArgument` names, even if it is empty or missing."""
    from orchestrator.sweep.folder import ResultsFolder

    if not os.path.isfile(path):  # noqa: PTH113 - a folder of others may not be entered
        return ResultsFolder(path)
    from orchestrator.spec import read_spec

    return ResultsFolder(read_spec(path).folder)


def sweep_folder(path: Path) -> "ResultsFolder":
    """Return the results folder that a `FolderArgument` names.

    Raises:
        ResultsError: it holds no sweep.
    """
    folder = results_folder(path)
    folder.existing()
    return folder


def as_typed(path: Path) -> str:
    """Return a path as a user would type it here: relative to the current folder if it lies below."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def traceback_wanted() -> bool:
    """Return whether the user asks for the traceback of an error below its message."""
    return TRACEBACK in sys.argv
