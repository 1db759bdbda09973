"""The notebook of examples/: every cell runs, from the spec to figures."""

from pathlib import Path

import pytest

from tests.root import ROOT

nbformat = pytest.importorskip("nbformat", reason="nbclient is not installed")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")

NOTEBOOK = ROOT / "examples/from-run-to-figures.ipynb"


@pytest.mark.sweep
def test_the_notebook_goes_from_a_run_to_figures(tmp_path: Path):
    (tmp_path / "data").symlink_to(ROOT / "examples/data")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit it without outputs"
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    shown = [output for each in outputs.values() for output in each]
    assert not [output for output in shown if output.output_type == "error" or output.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in shown) == 2
    said = "".join(output.get("text", "") for output in shown)
    assert "did you mean `seeds`?" in said
    assert "smallest loss: layers:" in said
    assert any("54 of 54 cells" in output.get("data", {}).get("text/html", "") for output in shown)
    assert (tmp_path / "spectra.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "accuracy.png").stat().st_size > 5_000
