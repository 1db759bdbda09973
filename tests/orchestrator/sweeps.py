"""Small sweeps for tests: specs as dictionaries, data and models of a few kilobytes, plans without a model."""

import contextlib
import copy
import io
import random
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from orchestrator.cli import main
from orchestrator.engine.run import Ending, resolve, run
from orchestrator.plan.plan import Plan, make_plan
from orchestrator.plan.speeds import Speeds
from orchestrator.results.loading import Results, load
from orchestrator.results.tables.manifest import PART, facts_of, read_manifest, write_manifest
from orchestrator.spec import Spec, read_spec
from orchestrator.sweep.folder import ResultsFolder, Sweep
from orchestrator.sweep.layer_sets import HEAD, GroupFacts
from orchestrator.sweep.on_change import OnChange
from orchestrator.sweep.sources import FileFingerprint, Source, Sources
from orchestrator.sweep.survey import surveys
from orchestrator.sweep.survey_facts import Architecture, Survey
from tests.tiny_models import WORDS, save_tiny

SPEC: Mapping[str, Any] = {
    "name": "tiny",
    "model": {"path": "model", "dtype": "float64"},
    "task": {"data": "data.parquet", "kind": "classification", "n_eval": 6, "max_length": 16},
    "adapter": {"rank": 2, "target_modules": ["query", "value"]},
    "kernel": {"outputs": "full"},
    "grid": {
        "lambdas": {"values": [0.01, 1.0], "scale": "trace"},
        "layer_sets": ["each_layer", "all_layers"],
        "seeds": [0],
        "n_train": [10],
    },
    "compute": {"executor": "inline", "shard_examples": 4, "memory_budget": "100MB", "rows": "stored"},
}
"""A valid spec; tests name what they change. Rows go to the disk, so that there are stages of every kind."""


class Quiet:
    """Takes a run's progress and keeps its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def begin(self, totals: dict[str, int], finished: dict[str, int]) -> None:
        pass

    def advance(self, kind: str) -> None:
        pass

    def note(self, message: str) -> None:
        self.notes.append(message)


def changed(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with dotted names set to other values; None removes a key."""
    tree = copy.deepcopy(dict(base))
    for name, value in changes.items():
        *sections, key = name.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        if value is None:
            place.pop(key, None)
        else:
            place[key] = value
    return tree


def spec_of(changes: Mapping[str, Any] | None = None) -> Spec:
    """Return the tiny spec with some of its keys changed."""
    return Spec.model_validate(changed(SPEC, changes or {}))


def write_data(path: Path, *, n: int = 40, classes: int = 2, seed: int = 0, **columns: list[Any] | None) -> Path:
    """Write `n` sentences of known words with a class and a rating; `columns` replace those, None removes one."""
    draw = random.Random(seed)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(1, 6))) for _ in range(n)]
    ratings = [round(draw.uniform(-4, 4), 3) for _ in range(n)]
    table = {"text": texts, "label": [i % classes for i in range(n)], "rating": ratings} | columns
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({name: values for name, values in table.items() if values is not None}), path)
    return path


def write_spec(folder: Path, changes: Mapping[str, Any] | None = None, *, name: str = "sweep.yaml") -> Path:
    """Write the tiny spec into `folder`, its results beside it unless `changes` says otherwise."""
    path = folder / name
    tree = changed(SPEC, {"results.folder": str(folder / "results")} | dict(changes or {}))
    path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    return path


def make_sweep(folder: Path, changes: Mapping[str, Any] | None = None, *, model: Path | None = None) -> Path:
    """Write spec, data and model into `folder`; return the spec's path.

    `model` is a model to use where it lies instead of saving one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_data(folder / "data.parquet")
    if model is None:
        save_tiny("bert", folder / "model")
    return write_spec(folder, ({"model.path": str(model)} if model else {}) | dict(changes or {}))


SPEEDS = Speeds(model=1e9, layer_pass=1e-3, products=1e9, memory=1e9, disk=1e9, transfer=1e9, source="a test")
"""Speeds of a machine that is nowhere."""


def run_spec(path: Path, *, on_change: OnChange = OnChange.REFUSE) -> Ending:
    """Run the spec at `path` without a command line."""
    return run(read_spec(path), path.parent, Quiet(), on_change=on_change)


def plan_spec(path: Path) -> Plan:
    """Return the plan of the spec at `path`."""
    spec = read_spec(path)
    folder = ResultsFolder(spec.folder)
    sweep = resolve(spec, path.parent, folder, trusts_code=False)
    return make_plan(sweep, surveys(sweep, folder.artifacts()), folder.artifacts())


def results_of(path: Path) -> Results:
    """Return the results of the spec at `path`."""
    return load(read_spec(path).folder)


def rewrite_table(results: Path, name: str, rows: pa.Table) -> None:
    """Put other rows in the place of a table's, as if a run had written them."""
    folder = ResultsFolder(results)
    manifest = read_manifest(folder)
    assert manifest is not None
    path = folder.tables / name / PART
    pq.write_table(rows, path)
    manifest["tables"][name] = facts_of(path, len(rows))
    write_manifest(folder, manifest)


def groups_of(layers: int, targets: tuple[str, ...], *, n_parameters: int = 64, head: bool = True) -> list[GroupFacts]:
    """Return the groups of a model with the same targets in every layer."""
    inner = [
        GroupFacts(f"{layer}.{target}", layer, target, n_parameters) for layer in range(layers) for target in targets
    ]
    return inner + ([GroupFacts(HEAD, None, HEAD, 34)] if head else [])


def survey_of(
    *,
    groups: list[GroupFacts] | None = None,
    n_outputs: int = 2,
    pool: int = 100_000,
    shared_pool: bool = True,
) -> Survey:
    """Return what a survey of a model with two layers would find, without a model."""
    found = tuple(groups_of(2, ("query", "value")) if groups is None else groups)
    facts = Architecture(
        n_layers=max((group.layer + 1 for group in found if group.layer is not None), default=0),
        hidden_size=16,
        n_parameters=10_000,
        linear_parameters=4_000,
        weight_bytes=80_000,
        largest_layer_bytes=80_000,
        linear_width=0,
        model_type="bert",
        is_decoder=False,
    )
    return Survey(found, n_outputs, facts, pool, pool, shared_pool, 8.0)


def sources_of(model: str = "model", data: str = "data.parquet", *, content: str = "a") -> Sources:
    """Return sources as they would be found at two places, with the same files wherever they lie."""
    print_of = FileFingerprint(content * 64, 1, 1, 1)
    return Sources(Source(model, files={"config.json": print_of}), Source(data, files={"data.parquet": print_of}))


def sweep_of(changes: Mapping[str, Any] | None = None, *, sources: Sources | None = None) -> Sweep:
    """Return the tiny spec, changed, with made-up sources."""
    return Sweep(spec_of(changes), sources or sources_of())


def plan_of(
    changes: Mapping[str, Any] | None = None, *, survey: Survey | None = None, sources: Sources | None = None
) -> Plan:
    """Return the plan of the tiny spec, changed, without a model or data."""
    return make_plan(sweep_of(changes, sources=sources), [survey or survey_of()])


@dataclass(frozen=True)
class Answer:
    """Output of a command and its exit status."""

    status: int
    output: str
    errors: str

    @property
    def message(self) -> str:
        """Standard error without the line with which `run` begins."""
        first, _, others = self.errors.partition("\n")
        return others if first.endswith(": looking at the model and the data") else self.errors


def ntksweep(*arguments: str | Path) -> Answer:
    """Run the command as a shell would, in this process."""
    output, errors = io.StringIO(), io.StringIO()
    status = 0
    with (
        mock.patch.object(sys, "argv", ["ntksweep", *map(str, arguments)]),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        try:
            main()
        except SystemExit as ended:
            status = int(ended.code or 0)
    return Answer(status, output.getvalue(), errors.getvalue())
