"""A folder whose records somebody edited, checksums and all: commands that look end with a message, or pass over it."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.store.sealed import sealed, unsealed
from tests.orchestrator.sweeps import make_sweep, ntksweep, run_spec

EDITS: list[tuple[str, Sequence[str | int], Any]] = [
    ("tables/manifest.json", ["tables", "cells"], 0),
    ("tables/manifest.json", ["tables", "spectra"], {}),
    ("tables/manifest.json", ["tables"], []),
    ("tables/manifest.json", ["tables", "cells", "bytes"], None),
    ("tables/manifest.json", ["cells"], "six"),
    ("tables/manifest.json", ["plan"], 1.5),
    ("plan.json", ["problems", 0, "stages", 1], True),
    ("plan.json", ["problems", 0, "stages", 1], "../../../etc/passwd"),
    ("plan.json", ["layer_sets", 1], [["a"]]),
    ("plan.json", ["lambdas", 0], "one"),
    ("plan.json", ["stages"], []),
    ("plan.json", ["problems", 0, "variant"], 10**30),
    ("plan.json", ["problems", 0, "seed"], []),
    ("plan.json", ["divisions", 0, 0, 0], -1),
    ("artifacts/survey/*.json", ["facts", "mean_tokens"], 0),
    ("artifacts/survey/*.json", ["facts", "model", "linear_parameters"], [["a"]]),
    ("artifacts/survey/*.json", ["facts", "model"], None),
    ("artifacts/survey/*.json", ["facts", "groups", 0, "layer"], []),
    ("artifacts/survey/*.json", ["facts", "groups", 0], "0.query"),
    ("artifacts/survey/*.json", ["facts", "class_sizes"], {"a": 1}),
    ("artifacts/survey/*.json", ["facts"], None),
    ("artifacts/survey/*.json", ["facts", "groups", 1, "name"], "x"),
    ("artifacts/survey/*.json", ["facts", "groups", 1], {"name": "0.x", "layer": 0, "target": "x", "n_parameters": 32}),
    ("artifacts/survey/*.json", ["facts", "groups", 0, "layer"], 10**6),
    ("artifacts/survey/*.json", ["facts", "groups", 0, "n_parameters"], 0),
    ("artifacts/survey/*.json", ["facts", "model", "n_layers"], 0),
    ("artifacts/survey/*.json", ["facts", "n_outputs"], 0),
    ("artifacts/survey/*.json", ["facts", "mean_tokens"], 1e308),
    ("artifacts/survey/*.json", ["facts", "pool_train"], -1),
]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The results of a finished sweep; nobody changes them."""
    spec = make_sweep(tmp_path_factory.mktemp("template"), model=tiny_model)
    run_spec(spec)
    return spec.parent / "results"


@pytest.mark.parametrize(("file", "place", "value"), EDITS)
def test_an_edited_record_stops_no_look(
    file: str, place: Sequence[str | int], value: Any, template: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "results"
    shutil.copytree(template, folder)
    (path,) = folder.glob(file)
    record = json.loads(json.dumps(unsealed(path.read_bytes())))
    inner = record
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path.write_bytes(sealed(record))
    out = ["-o", str(tmp_path / "out")]
    looks = [
        ["status"], ["status", "--verify"], ["show"], ["select", "--greedy", "1"], ["logs"],
        ["export", *out, "--format", "csv"], ["report", *out, "--force"],
    ]  # fmt: skip
    for name, *options in looks:
        answer = ntksweep(name, folder, *options)
        assert answer.status in (0, 2, 3), answer.errors
        assert answer.errors == "" or answer.errors.startswith("error: ")
