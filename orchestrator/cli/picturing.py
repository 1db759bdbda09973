"""The commands that draw results: report, plot, findings."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.arguments import FolderArgument, as_typed, no_cell_yet, possible_path, sweep_folder
from orchestrator.cli.terminal import say
from orchestrator.errors import ResultsError, StorageError

if TYPE_CHECKING:
    from orchestrator.results.pictures.measured import Measured

ForceOption = Annotated[bool, typer.Option("--force", help="Replace the file also if ntksweep did not write it.")]


def report(
    path: FolderArgument,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="HTML file to write; by default report.html in the folder.", callback=possible_path
        ),
    ] = None,
    force: ForceOption = False,
) -> None:
    """Write what a sweep found as one HTML file with pictures; it loads nothing from the network.

    FOLDER may also be one that `ntksweep findings` has written. An earlier report is replaced.

    Example: ntksweep report results/quickstart
    """
    from orchestrator.results.report.write import PAGE, write_report

    measured, root = _measured(path)
    if measured.cells.empty and not (measured.work and measured.work.failures):
        raise no_cell_yet(root)
    try:
        written = write_report(measured, output or root / PAGE, overwrite=force)
    except StorageError as error:
        if output is not None:
            raise
        raise StorageError(f"{error}, or give --output FILE") from error
    say(f"{as_typed(written)} has the report")


def plot(
    path: FolderArgument,
    *,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="File to write: .pdf, .svg, .eps or .png.", callback=possible_path),
    ],
    kind: Annotated[
        str,
        typer.Option(
            help="lambda-path, heatmap, models, kernel-numbers, correlations, difference, trajectories, spectra, "
            "densities, additions or costs.",
            metavar="KIND",
        ),
    ] = "lambda-path",
    size: Annotated[
        str, typer.Option(help="column or page of a paper with two columns, or slide.", metavar="SIZE")
    ] = "page",
    task: Annotated[str | None, typer.Option(help="The task to draw, if the grid has several.", metavar="NAME")] = None,
    force: ForceOption = False,
) -> None:
    """Draw one picture of the report as a figure for a paper.

    An earlier figure is replaced, any other file only with --force.

    Example: ntksweep plot results/quickstart --kind lambda-path -o figure.pdf
    """
    from orchestrator.results.drawing.paper import Size, refuse_other_file, write_figure
    from orchestrator.results.pictures.kinds import picture_named

    if size not in list(Size):
        raise ResultsError(f"there is no size `{size}`; there are: {', '.join(Size)}")
    if not force:
        refuse_other_file(output)
    measured, _ = _measured(path, task)
    written = write_figure(picture_named(kind, measured), output, Size(size))
    say(f"{as_typed(written)} has the figure")


def findings(
    path: FolderArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to write to.", show_default=False, callback=possible_path)
    ],
    force: ForceOption = False,
) -> None:
    """Write the numbers of a trained sweep, with intervals, as a page of Markdown and small tables.

    Earlier findings in the folder are replaced; other files with the same names only with --force.

    Example: ntksweep findings results/paper-minilm --output findings
    """
    from orchestrator.results.findings.write import write_findings
    from orchestrator.results.loading import load

    say(f"{as_typed(write_findings(load(sweep_folder(path).root), output, overwrite=force))} has the findings")


def _measured(path: Path, task: str | None = None) -> "tuple[Measured, Path]":
    """Return what a sweep measured, and the folder in which its tables are."""
    from orchestrator.results.loading import Results
    from orchestrator.results.pictures.measured import Measured
    from orchestrator.results.pictures.tables import TablesOfResults, WrittenTables
    from orchestrator.results.pictures.work import work_of

    if WrittenTables.are_in(path):
        return Measured(WrittenTables(path), task=task), path
    folder = sweep_folder(path)
    return Measured(TablesOfResults(Results(folder)), work_of(folder), task), folder.root
