"""Writing findings: the page, and the tables behind it."""

from pathlib import Path

import pandas as pd

from orchestrator.documents.writing import to_yaml
from orchestrator.errors import ResultsError
from orchestrator.results.export import write_table
from orchestrator.results.findings.choices import PER_PARAMETER, choices_made
from orchestrator.results.findings.linearity import linearity
from orchestrator.results.findings.page import OUTCOME, Findings, page
from orchestrator.results.findings.regimes import over_tasks
from orchestrator.results.loading import Results
from orchestrator.results.tables.contribution_to_all import COLUMNS, contribution_to_all
from orchestrator.store.files import explained_output, make_folder

PAGE = "README.md"

HEADING = "# The spec of these findings, every key resolved; paths start from the folder of the spec that was run.\n"

_FILES = (
    PAGE, "spec.yaml", "cells.parquet", "correlations.parquet", "linearity.csv", "regimes.csv", "choices.csv",
)  # fmt: skip


def write_findings(results: Results, output: Path, *, overwrite: bool = False) -> Path:
    """Write the findings of a sweep whose cells were trained; return their page.

    Beside the page stand `spec.yaml`, `cells.parquet`, `correlations.parquet`, `linearity.csv`,
    `regimes.csv` and `choices.csv`.

    Args:
        results: the tables of the sweep.
        output: the folder to write to; those of earlier ones are replaced.
        overwrite: whether other files of these names may be replaced too.

    Raises:
        ResultsError: no cell was trained, or another file lies there.
        StorageError: the folder cannot be written.
    """
    spec = results.folder.existing().spec
    if spec.finetune is None:
        raise ResultsError(
            "findings say how fine-tuning went, and nothing was trained: give the spec a section `finetune`; "
            "`ntksweep report` draws every sweep"
        )
    cells = results.cells.to_pandas()
    if spec.kernel.contributions:
        carried = contribution_to_all(results.table("contributions").to_arrow(list(COLUMNS)))
        cells[PER_PARAMETER] = cells["cell_id"].map(carried) / cells["n_parameters"]
    trained = cells[cells["finetune_status"].notna()]
    if trained.empty:
        raise ResultsError("no cell of the sweep is trained yet; `ntksweep run` goes on")
    correlations = results.correlations.to_pandas()
    found = Findings(
        spec=spec,
        n_cells=len(trained),
        n_diverged=int((trained["finetune_status"] == "diverged").sum()),
        n_never_pulled=int((trained["finetune_pulled"] == 0).sum()),
        linearity=linearity(cells),
        correlations=correlations,
        regimes=over_tasks(correlations, OUTCOME),
        choices=choices_made(cells),
        provenance=_provenance(trained, len(cells)),
    )
    make_folder(output)
    if not overwrite:
        _refuse_other_files(output)
    with explained_output(output):
        (output / "spec.yaml").write_text(_spec_text(results), encoding="utf-8")
        write_table(results.cells, output / "cells.parquet", "parquet")
        write_table(results.correlations, output / "correlations.parquet", "parquet")
        found.linearity.to_csv(output / "linearity.csv", index=False, float_format="%.6g")
        found.regimes.to_csv(output / "regimes.csv", index=False, float_format="%.6g")
        found.choices.to_csv(output / "choices.csv", index=False, float_format="%.6g")
        (output / PAGE).write_text(page(found), encoding="utf-8")
    return output / PAGE


def _refuse_other_files(output: Path) -> None:
    """Raise an error if the folder has files of these names that no earlier findings left."""
    there = [name for name in _FILES if (output / name).exists()]
    if there and not _are_findings(output):
        raise ResultsError(
            f"{output} has {', '.join(there)}, not written by `ntksweep findings`; name another folder, or give --force"
        )


def _are_findings(output: Path) -> bool:
    try:
        return (output / "spec.yaml").read_text(encoding="utf-8").startswith(HEADING)
    except (OSError, UnicodeDecodeError):
        return False


def _spec_text(results: Results) -> str:
    content = results.folder.existing().spec.model_dump(mode="json", exclude={"results"}, exclude_none=True)
    return HEADING + to_yaml(content)


def _provenance(trained: pd.DataFrame, n_cells: int) -> list[str]:
    versions = ", ".join(f"{name} {trained[name].iloc[0]}" for name in ("ntksweep", "torch", "transformers", "numpy"))
    commits = ", ".join(str(commit) for commit in trained["git"].dropna().unique())
    return [
        f"{len(trained)} of {n_cells} cells trained, on {', '.join(map(str, trained['device'].unique()))}",
        f"{versions}" + (f"; commit {commits}" if commits else ""),
    ]
