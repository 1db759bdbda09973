"""Rows of a float64 model do not depend on the device, although every device has its own cosines."""

from pathlib import Path

import numpy as np
import pytest

from tests.devices.conftest import Pretending
from tests.devices.rows import rows_of, rows_of_architecture
from tests.tiny_models import FAMILIES, Kind, save_tiny

pytestmark = pytest.mark.xdist_group("pretended device")


@pytest.mark.parametrize("kind", FAMILIES)
def test_rows_and_features_are_those_of_a_processor(kind: Kind, pretending: Pretending, tmp_path: Path):
    save_tiny(kind, tmp_path)
    here, there = rows_of(tmp_path, kind, "float64", "cpu"), pretending(rows_of, tmp_path, kind, "float64", "cuda")
    for name, expected in here.items():
        assert np.linalg.norm(there[name] - expected) <= 1e-10 * np.linalg.norm(expected), name


@pytest.mark.parametrize("model_type", ["bloom", "mpt", "deberta-v2", "roformer"])
def test_slopes_buckets_and_tables_of_positions_are_those_of_a_processor(
    model_type: str, pretending: Pretending, tmp_path: Path
):
    here = rows_of_architecture(tmp_path, model_type, "cpu")
    there = pretending(rows_of_architecture, tmp_path, model_type, "cuda")
    assert len(here) > 1
    for name, expected in here.items():
        assert np.linalg.norm(there[name] - expected) <= 1e-10 * np.linalg.norm(expected), name
