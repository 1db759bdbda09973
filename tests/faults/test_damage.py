"""A flipped byte is found, by `status --verify` and by a run that needs it, and what it spoilt is computed again."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from orchestrator.stages.registry import KINDS
from orchestrator.store.arrays import ArrayReader
from orchestrator.store.journal import read_journals
from orchestrator.sweep.folder import ResultsFolder
from tests.faults.conftest import NewSweep
from tests.faults.driving import Command
from tests.faults.tables import assert_same_tables, checksums
from tests.orchestrator.sweeps import ntksweep

pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("faults")]

ARRAYS = [
    ("dataset", "train.ids"),
    ("dataset", "eval.labels"),
    ("dataset", "eval.rows"),
    ("capture", "scores"),
    ("capture", "1.value"),
    ("gram", "0.query"),
    ("gram", "head"),
    ("solve", "eigenvalues.0"),
    ("solve", "train.0"),
    ("solve", "initial"),
]
"""Arrays of every kind of stage that a run reads."""

HERE = ("dataset", "capture", "gram", "solve")
"""Kinds of stages of the small sweep, whose cells are not trained: other tests have those."""


def flip(path: Path, start: int = 0, stop: int | None = None) -> None:
    """Flip a bit of one byte in [start, stop) of a file, anywhere by default."""
    content = bytearray(path.read_bytes())
    content[random.Random(path.name).randrange(start, stop or len(content))] ^= 1 << random.Random(start).randrange(8)
    path.write_bytes(content)


def flip_array(path: Path, name: str) -> None:
    places = [place for place in ArrayReader(path).places(name) if place[1] > place[0]]
    flip(path, *random.Random(name).choice(places))


def some(results: Path, kind: str, suffix: str) -> Path:
    """Return a file of some artifact of a kind."""
    return random.Random(kind).choice(sorted((results / "artifacts" / kind).glob(f"[!.]*{suffix}")))


@pytest.fixture
def copied(new_sweep: NewSweep, undisturbed: Path) -> Callable[..., Path]:
    """Copy the finished sweep, and forget what comes after a kind of stage; return the spec's path."""

    def copy(until: str | None = None) -> Path:
        spec = new_sweep()
        left = shutil.copytree(undisturbed, spec.parent / "results", ignore=shutil.ignore_patterns("journal", "claims"))
        if until is not None:
            shutil.rmtree(left / "tables")
            for kind in list(KINDS)[list(KINDS).index(until) + 1 :]:
                shutil.rmtree(left / "artifacts" / kind, ignore_errors=True)
        return spec

    return copy


def begun(results: Path) -> set[str]:
    """Return the stages that runs have begun."""
    return {event["stage"] for event in read_journals(results / "journal") if event["event"] == "started"}


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [("survey", ".json"), *((k, s) for k in HERE for s in (".json", ".safetensors"))],
)
def test_status_verify_finds_a_flipped_byte_in_any_artifact(
    kind: str, suffix: str, copied: Callable[..., Path]
) -> None:
    results = copied().parent / "results"
    assert ntksweep("status", results, "--verify").status == 0
    damaged = some(results, kind, suffix)
    flip(damaged)
    answer = ntksweep("status", results, "--verify", "--json")
    assert answer.status == 3
    (found,) = json.loads(answer.output)["damaged"]
    assert found.startswith(f"{kind}/{damaged.name[:24]}: ")
    assert f"damaged: {kind}/{damaged.name[:24]}" in ntksweep("status", results, "--verify").output
    assert damaged.exists(), "looking changes nothing"


@pytest.mark.parametrize(
    "name", [*(f"{table}/part-0.parquet" for table in ("cells", "spectra", "predictions")), "manifest.json"]
)
def test_a_flipped_byte_in_a_table_is_found_and_the_table_written_again(
    name: str, copied: Callable[..., Path], expected: dict[str, pa.Table]
) -> None:
    spec = copied()
    results = spec.parent / "results"
    before = (results / "tables" / name).read_bytes()
    flip(results / "tables" / name)
    answer = ntksweep("status", results, "--verify")
    assert answer.status == 3
    assert f"damaged: tables/{name}" in answer.output
    answer = ntksweep("run", spec)
    assert answer.status == 0
    assert begun(results) == set(), "the artifacts are whole"
    assert (results / "tables" / name).read_bytes() == before
    assert_same_tables(results, expected)
    assert ntksweep("status", results, "--verify").status == 0


@pytest.mark.parametrize(("kind", "array"), ARRAYS)
def test_a_run_that_needs_a_damaged_array_computes_it_again(
    kind: str, array: str, copied: Callable[..., Path], undisturbed: Path, expected: dict[str, pa.Table]
) -> None:
    spec = copied(until=kind)
    results = spec.parent / "results"
    damaged = some(results, kind, ".safetensors")
    flip_array(damaged, array)
    there = {path.stem for path in (results / "artifacts").glob("*/*.json")}
    answer = ntksweep("run", spec)
    assert answer.status == 0, answer.errors
    said = f"the artifact {kind}/{damaged.name[:24]} is damaged ({damaged.name}: {array} does not match its checksum)"
    assert said in " ".join(answer.errors.split())
    assert begun(results) & there == {damaged.name[:24]}, "what is whole is not computed again"
    assert_same_tables(results, expected)
    assert checksums(results) == checksums(undisturbed)
    assert (results / "artifacts" / "damaged" / kind / damaged.name).exists()
    assert ntksweep("status", results, "--verify").status == 0


@pytest.mark.parametrize("kind", ["survey", "dataset", "capture", "gram", "solve"])
def test_a_run_that_needs_a_damaged_record_computes_it_again(
    kind: str, copied: Callable[..., Path], undisturbed: Path, expected: dict[str, pa.Table]
) -> None:
    spec = copied(until="dataset" if kind == "survey" else kind)
    results = spec.parent / "results"
    damaged = some(results, kind, ".json")
    flip(damaged)
    answer = ntksweep("run", spec)
    assert answer.status == 0, answer.errors
    assert_same_tables(results, expected)
    assert checksums(results) == checksums(undisturbed)
    assert ntksweep("status", results, "--verify").status == 0


def test_everything_damaged_at_once_is_computed_again(
    copied: Callable[..., Path], expected: dict[str, pa.Table]
) -> None:
    spec = copied(until="gram")
    results = spec.parent / "results"
    for path in (results / "artifacts").rglob("*.safetensors"):
        for name in ArrayReader(path).names():
            flip_array(path, name)
    answer = ntksweep("run", spec)
    assert answer.status == 0, answer.errors
    assert_same_tables(results, expected)


def test_what_nobody_needs_stays_until_somebody_does(copied: Callable[..., Path], new_sweep: NewSweep) -> None:
    spec = copied()
    results = spec.parent / "results"
    damaged = some(results, "gram", ".safetensors")
    flip_array(damaged, "0.query")
    answer = ntksweep("run", spec)
    assert answer.status == 0
    assert "the sweep was finished already; nothing to do" in answer.output
    new_sweep({"grid.layer_sets": ["all_layers", {"groups": [["0.query", "1.value"]]}]})
    answer = ntksweep("run", spec)
    assert answer.status == 0, answer.errors
    assert damaged.name[:24] in begun(results)
    folder = ResultsFolder(results)
    assert folder.artifacts().is_intact("gram", damaged.name[:24])


@pytest.mark.ray
def test_workers_of_ray_find_damage_too(
    copied: Callable[..., Path], undisturbed: Path, expected: dict[str, pa.Table]
) -> None:
    spec = copied(until="gram")
    results = spec.parent / "results"
    for kind in ("gram", "capture", "dataset"):
        path = some(results, kind, ".safetensors")
        flip_array(path, {"dataset": "eval.labels", "capture": "scores", "gram": "0.query"}[kind])
    answer = Command("run", spec, "--executor", "ray", "--workers", "2", folder=spec.parent).wait()
    assert answer.status == 0, answer.output
    assert_same_tables(results, expected)
    assert checksums(results) == checksums(undisturbed)
