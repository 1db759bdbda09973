"""Sweeps whose kernels are reduced to a band: the numbers of the tridiagonal form, from stages to tables."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ntk_dist.solvers import band
from ntk_dist.solvers.band import BandDecomposition
from tests.orchestrator.sweeps import make_sweep, results_of, run_spec, write_spec

FEW, MANY = [0.01, 1.0], [1e-2, 0.2, 1.0, 50.0]
OWN = {"head.in_kernel": False, "kernel.eigenvectors": False, "results.predictions": True}


def numbers(spec: Path, name: str) -> dict[str, np.ndarray]:
    """Return the columns of numbers of a table that come from no clock, in the order of its rows."""
    table: pa.Table = getattr(results_of(spec), name).to_arrow()
    kinds = {field.name: field.type for field in table.schema}
    chosen = [column for column, kind in kinds.items() if pa.types.is_floating(kind) and "seconds" not in column]
    return {column: table[column].to_numpy(zero_copy_only=False) for column in chosen}


@pytest.mark.parametrize("head", ["pretrained", "ridge"])
def test_a_sweep_with_a_band_has_the_numbers_of_one_without(
    head: str, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    own: dict[str, Any] = OWN | ({"head.kind": "ridge"} if head == "ridge" else {})
    plain = make_sweep(tmp_path / "plain", own | {"grid.lambdas.values": MANY}, model=tiny_model)
    assert not run_spec(plain).report.failures

    reduced: list[int] = []
    to_band = BandDecomposition._reduce
    monkeypatch.setattr(BandDecomposition, "_reduce", lambda self, A: (reduced.append(len(A)), to_band(self, A))[1])
    monkeypatch.setattr(band, "BAND_FROM", 2)
    monkeypatch.setattr(BandDecomposition.__init__, "__defaults__", (4,))
    spec = make_sweep(tmp_path / "band", own | {"grid.lambdas.values": FEW}, model=tiny_model)
    assert not run_spec(spec).report.failures
    decomposed = len(reduced)
    assert decomposed
    # Lambdas that join read the band from its file.
    write_spec(spec.parent, {"model.path": str(tiny_model)} | own | {"grid.lambdas.values": MANY})
    assert not run_spec(spec).report.failures
    assert len(reduced) == decomposed

    for table in ("cells", "predictions"):
        expected, found = numbers(plain, table), numbers(spec, table)
        assert found.keys() == expected.keys()
        for column, values in expected.items():
            # Condition numbers and eigenvalues near zero are as exact as the noise floor.
            if "condition" in column or column in ("sigma_min", "effective_rank"):
                continue
            np.testing.assert_allclose(found[column], values, rtol=1e-8, atol=1e-11, err_msg=column)
