"""Arguments and options that several commands share."""

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.errors import ResultsError, SpecError
from orchestrator.sweep.missing_places import named_alike
from orchestrator.sweep.on_change import OnChange

if TYPE_CHECKING:
    from orchestrator.documents import Overrides
    from orchestrator.spec import Spec
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
    from orchestrator.spec.places import given_path

    return None if path is None else given_path(path)


SpecArgument = Annotated[
    Path,
    typer.Argument(
        metavar="SPEC",
        help="The sweep's YAML file, or the results folder of a sweep.",
        show_default=False,
        callback=possible_path,
    ),
]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Values for keys of the spec, for example 'grid.seeds=[0,1]'; checked and recorded like those in the "
        "file.",
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
    typer.Option(
        help="If the spec would now give other numbers than the results folder has: refuse, go on with the stored "
        "spec, or take the given one."
    ),
]
TrustOption = Annotated[
    bool,
    typer.Option(TRUST, help="Run Python code that comes with the model, if model.trust_remote_code asks for it."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def given_spec(path: Path, overrides: "Overrides | None" = None) -> "tuple[Spec, Path]":
    """Return the spec that a `SpecArgument` names, and the folder from which its paths start.

    A results folder stands for the sweep that it holds, whose model and data are where they were found.

    Args:
        path: the argument.
        overrides: values that take the place of the spec's, see `read_spec`.

    Raises:
        SpecError: the file is missing, is not YAML, or is not a valid spec.
        ResultsError: it is a folder that holds no sweep.
    """
    from orchestrator.spec import change_spec, read_spec

    root = _sweep_at(path)
    if root is not None:
        from orchestrator.sweep.folder import ResultsFolder
        from orchestrator.sweep.sources import spec_with_places

        sweep = ResultsFolder(root).existing()
        return change_spec(spec_with_places(sweep.spec, sweep.sources, root), overrides or ()), root
    if os.path.isdir(path):  # noqa: PTH112 - a folder of others may not be entered
        specs = [as_typed(each) for each in sorted(path.glob("*.yaml"))[:5]]
        raise SpecError(
            f"the spec {path} cannot be read: it is a folder, and no results folder of a sweep; name a file"
            + (f": {' or '.join(specs)}" if specs else "")
        )
    if not os.path.lexists(path) and (near := _meant(path)):
        raise SpecError(f"there is nothing at {path}; did you mean {as_typed(near)}?")
    return read_spec(path, overrides=overrides or ()), path.parent


def _sweep_at(path: Path) -> Path | None:
    """Return the results folder that a path names: the folder, one of its parts, or the spec that it keeps."""
    from orchestrator.sweep.folder import FOLDERS

    is_folder = os.path.isdir(path)  # noqa: PTH112
    folder = path if is_folder else path.parent
    if is_folder and path.name in FOLDERS:
        folder = path.parent
    elif not is_folder and path.name != "spec.yaml":
        return None
    return folder if _holds_sweep(folder) or (is_folder and _was_run_in(folder)) else None


def _was_run_in(root: Path) -> bool:
    """Tell whether a folder has the parts of a results folder, so that a damaged `spec.yaml` is reported as damaged."""
    kept = root / "spec.yaml"
    parts = all(os.path.isdir(root / part) for part in ("artifacts", "journal"))  # noqa: PTH112
    return parts and os.path.isfile(kept) and not os.path.islink(kept)  # noqa: PTH113, PTH114


def _holds_sweep(root: Path) -> bool:
    """Tell whether a folder has the spec of a sweep that was run in it, whatever else is wrong with it."""
    from orchestrator.sweep.folder import HEADING

    kept = root / "spec.yaml"
    try:
        if kept.is_symlink() or not kept.is_file():  # opening a pipe would wait for somebody to write to it
            return False
        with kept.open("rb") as stream:
            return stream.read(len(HEADING)) == HEADING.encode()
    except OSError:
        return False


def _meant(path: Path) -> Path | None:
    """Return the results or the spec that a missing path probably means: one of that name, or of a similar one."""
    others = (Path("results") / path, path.with_name(f"{path.name}.yaml"), path.with_suffix(".yaml"))
    there = next((each for each in others if os.path.exists(each)), None)  # noqa: PTH110 - folders may be closed
    return there or named_alike(path, lambda near: near.suffix in (".yaml", ".yml") or _holds_sweep(near))


def results_elsewhere(spec: "Spec", base: Path) -> str | None:
    """Return what to say if a sweep would begin anew although the folder of its spec holds its results; else None.

    Args:
        spec: the spec.
        base: the folder of its file.
    """
    there = base / spec.folder
    if os.path.lexists(spec.folder) or not _holds_sweep(there):
        return None
    return (
        f"this sweep has results in {as_typed(there)}, and would begin anew in {spec.folder}, which starts from the "
        "current folder: go to the folder of the spec, or set results.folder"
    )


def results_folder(path: Path) -> "ResultsFolder":
    """Return the results folder that a `FolderArgument` names, even if it is empty or missing."""
    from orchestrator.sweep.folder import ResultsFolder

    if (root := _sweep_at(path)) is not None:
        return ResultsFolder(root)
    if not os.path.lexists(path) and (near := _meant(path)):
        raise ResultsError(f"there is nothing at {path}; did you mean {as_typed(near)}?")
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


def no_cell_yet(root: Path) -> ResultsError:
    """Return the error of a command that shows cells, where a results folder has none."""
    return ResultsError(
        f"no cell of the sweep is finished yet: `ntksweep status {as_typed(root)}` says how it stands, and the same "
        "`ntksweep run` goes on"
    )


def as_typed(path: Path) -> str:
    """Return a path as a user would type it here: relative to the current folder if it lies below."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def traceback_wanted() -> bool:
    """Return whether the user asks for the traceback of an error below its message."""
    return TRACEBACK in sys.argv
