"""The commands that show results and check the installation: show, export, doctor."""

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.arguments import (
    FolderArgument,
    JsonOption,
    TrustOption,
    as_typed,
    no_cell_yet,
    possible_path,
    sweep_folder,
)
from orchestrator.cli.render import cells_table, checks_table
from orchestrator.cli.terminal import Terminal, say
from orchestrator.errors import ExitCode, ResultsError
from orchestrator.standard_json import standard_json

if TYPE_CHECKING:
    from orchestrator.results.loading import Table


class Format(StrEnum):
    """Formats that tables can be exported to."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


def show(
    path: FolderArgument,
    layer_set: Annotated[
        str | None,
        typer.Option(help="Show the cells of this layer set: its name, or 4, 0-2, query, all.", metavar="NAME"),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            help="Column to sort those cells by; by default eval_loss, or finetune_eval_loss where it is known.",
            metavar="COLUMN",
        ),
    ] = None,
    limit: Annotated[int, typer.Option(help="Most cells to show.", min=1)] = 20,
    as_json: JsonOption = False,
) -> None:
    """Show the best lambda of each layer set, or the cells of one.

    Example: ntksweep show results/quickstart --layer-set 4-5 --sort accuracy
    """
    from orchestrator.cli.summary import summarize
    from orchestrator.cli.summary_view import summary_view
    from orchestrator.results.loading import load
    from orchestrator.results.tables.manifest import tables_are_complete

    if sort is not None and layer_set is None:
        raise ResultsError("--sort orders the cells of one layer set: give --layer-set NAME with it")
    results = load(sweep_folder(path).root)
    if layer_set is not None:
        _show_cells(results.cells, layer_set, sort, limit, as_json)
        return
    if not len(results.cells):
        raise no_cell_yet(results.folder.root)
    summary = summarize(results)
    stored = results.folder.stored()
    overrides = list(stored.spec.overrides) if stored else []
    if as_json:
        print(standard_json(summary.to_json() | {"overrides": overrides}, indent=1))
        return
    console = Terminal()
    for part in summary_view(summary, console.width):
        console.print(part)
    if overrides:
        console.print(f"given beside the spec: {' '.join(overrides)}", soft_wrap=True)
    if not tables_are_complete(results.folder):
        console.print(
            "these are the cells so far, and what is missing may be better: `ntksweep status` says how the sweep stands"
        )


_OUTCOMES = ("eval_loss", "eval_accuracy", "eval_pearson")
_SHOWN = ("seed", "n_train", "lambda_given", "train_loss", *_OUTCOMES, "gcv")
_SHOWN_OF_TRAINED = (
    "cell_id", "seed", "n_train", "lambda_given",
    *(f"{model}{name}" for model in ("", "linearized_", "finetune_") for name in _OUTCOMES),
)  # fmt: skip


def _show_cells(cells: "Table", layer_set: str, sort: str | None, limit: int, as_json: bool) -> None:
    import difflib

    import pyarrow.compute as pc

    from orchestrator.results.usual_names import COLUMNS, layer_set_named, simplified

    names = [field.name for field in cells.dataset.schema]
    known = cells.to_arrow(["layer_set"])["layer_set"].unique().to_pylist()
    layer_set = layer_set_named(layer_set, known)
    rows = cells.to_arrow(where=pc.field("layer_set") == layer_set)
    trained = rows["finetune_eval_loss"].null_count < len(rows)
    sort = sort or ("finetune_eval_loss" if trained else "eval_loss")
    sort = sort if sort in names else COLUMNS.get(simplified(sort), sort)
    if sort not in names:
        nearest = difflib.get_close_matches(sort, names, n=1) or [names[0]]
        raise ResultsError(f"there is no column `{sort}`; did you mean `{nearest[0]}`?")
    rows = rows.sort_by(sort).slice(0, limit)
    if not len(rows):
        raise ResultsError(f"there is no layer set `{layer_set}`; there are: {', '.join(known[:20])}")
    if rows[sort].null_count == len(rows):
        from orchestrator.results.tables.cells import stage_of

        filled = f", which a stage `{kind}` fills" if (kind := stage_of(sort)) else ""
        raise ResultsError(
            f"no cell of {layer_set} has `{sort}`{filled}: metrics are those of the kind of task, and what training "
            "left is there where something was trained"
        )
    if as_json:
        print(standard_json(rows.to_pylist(), indent=1))
        return
    chosen = [
        name
        for name in dict.fromkeys((*(_SHOWN_OF_TRAINED if trained else _SHOWN), sort))
        if rows[name].null_count < len(rows)
    ]
    Terminal().print(cells_table(rows.select(chosen)))


def export(
    path: FolderArgument,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="File to write; with --adapter a folder.",
            show_default=False,
            callback=possible_path,
        ),
    ],
    *,
    table: Annotated[
        str,
        typer.Option(help="Table to write: cells, spectra, or another one that the sweep has (see docs/tables.md)."),
    ] = "cells",
    file_format: Annotated[
        Format | None, typer.Option("--format", help="Format; by default that of the file's ending.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    adapter: Annotated[
        str | None,
        typer.Option(
            help="Instead of a table, write the trained weights of this cell (column cell_id), as a folder that peft "
            "loads.",
            metavar="CELL",
        ),
    ] = None,
    trust_remote_code: TrustOption = False,
) -> None:
    """Write a table as CSV, JSON lines, or one Parquet file; or a trained cell as an adapter of peft.

    A file that exists is replaced only with --force.

    Example: ntksweep export results/quickstart --output cells.csv
    """
    if adapter is not None:
        _export_adapter(path, adapter, output, trusts_code=trust_remote_code)
        return
    from orchestrator.results.export import write_table
    from orchestrator.results.loading import load

    ending = output.suffix.removeprefix(".")
    if file_format is None and ending not in list(Format):
        raise ResultsError(f"the format cannot be told from `{output.name}`; end it in .csv, .jsonl or .parquet, "
                           "or give --format")  # fmt: skip
    results = load(sweep_folder(path).root).table(table)
    if output.is_file() and not force:
        raise ResultsError(f"{output} exists; name another file, or give --force")
    count = write_table(results, output, (file_format or Format(ending)).value)
    say(f"{count} rows in {output}")


def _export_adapter(path: Path, cell: str, output: Path, *, trusts_code: bool) -> None:
    from orchestrator.results.adapter_folder import export_adapter

    with Terminal(stderr=True).status("loading the model"):
        written = export_adapter(sweep_folder(path), cell, output, trusts_code=trusts_code)
    say(f"{as_typed(output)} has the adapter, and README.md says how peft loads it")
    say(
        f"loaded with peft, its logits on {written.n_examples} evaluation examples differ from the cell's by "
        f"{written.difference:.1e} at most"
    )
    if written.head_bias:
        say("the fitted head has biases, which peft does not load: README.md has the lines that do")


def doctor(
    folder: Annotated[Path, typer.Option(help="Where results would go.", callback=possible_path)] = Path("results"),
    as_json: JsonOption = False,
) -> None:
    """Check this installation, and say what is missing for which feature.

    Example: ntksweep doctor
    """
    from orchestrator.cli.doctor import examine

    checks = examine(folder)
    if as_json:
        print(json.dumps([asdict(check) for check in checks], indent=1))
    else:
        Terminal().print(checks_table(checks))
    if any(check.required and not check.ok for check in checks):
        raise typer.Exit(ExitCode.WRONG_INPUT)
