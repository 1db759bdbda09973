"""Spoilt specs: a plan, or one message that names the file, the line and the key; never anything else, or for long.

`NTKSWEEP_FUZZ=full` tries 20,000 specs instead of 1,000. Every one that is valid is planned, every tenth of those as
`ntksweep plan` does, with a model.
"""

import os
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, seed, settings

from orchestrator.documents.writing import to_yaml
from orchestrator.errors import SpecError, SweepError
from orchestrator.plan.estimate import refuse_what_cannot_fit
from orchestrator.plan.index import index_of
from orchestrator.plan.plan import make_plan
from orchestrator.spec import Spec, parse_spec, read_spec
from orchestrator.spec.describe import starting_spec
from orchestrator.sweep.choices import variants
from orchestrator.sweep.folder import ResultsFolder, Sweep, stored_text
from tests.fuzz.limits import check_message, in_memory, in_time
from tests.fuzz.mutations import spoilt
from tests.orchestrator.sweeps import SPEC, changed, ntksweep, sources_of, survey_of, write_data
from tests.root import ROOT
from tests.tiny_models import save_tiny

pytestmark = pytest.mark.faults

SPECS = 20_000 if os.environ.get("NTKSWEEP_FUZZ") == "full" else 1_000
PARTS = 4
"""Tests that share them, so that several processes can."""

TRAINED = changed(
    SPEC,
    {
        "finetune": {"learning_rate": 0.05, "epochs": 1, "combinations": {"coefficients": [0.5]}},
        "grid.tasks": {"one": {"data": "data.parquet"}, "two": {"data": "data.parquet", "label": "label"}},
        "grid.ranks": [1, 2], "grid.learning_rates": [0.1, 0.2],
    },
)  # fmt: skip
BASES = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "examples").glob("*.yaml"))} | {
    "tiny": yaml.safe_dump(dict(SPEC), sort_keys=False),
    "trained": yaml.safe_dump(TRAINED, sort_keys=False),
    "starting": "\n".join(line for line in starting_spec("mine").splitlines() if not line.lstrip().startswith("#")),
}


KEYS = [
    *sorted(Spec.model_fields),
    *["rank", "ranks", "kind", "values", "logspace", "seed", "n_eval", "<<", "x", "no", "1"],
    "",
]


_KEY = re.compile(rf"\b({'|'.join(Spec.model_fields)})\.\w+|the plan would have|the grid would have|the disk of")
"""Words that a message of planning has to name: a key, or a quantity that is too large."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model and data beside the spec."""
    place = tmp_path_factory.mktemp("specs")
    save_tiny("bert", place / "model")
    write_data(place / "data.parquet")
    return place


def plan(spec: Spec, folder: Path) -> None:
    """Plan a spec as `plan` does, without looking at its model and data."""
    tasks = {name: sources_of().data for name in spec.grid.tasks or {}}
    found = sources_of()
    sweep = Sweep(spec, type(found)(found.model, found.data, tasks))
    made = make_plan(sweep, [survey_of() for _ in variants(sweep)])
    results = ResultsFolder(folder / "results")
    index_of(made)
    refuse_what_cannot_fit(made, results)
    assert parse_spec(to_yaml(spec.model_dump(mode="json"))) == spec
    assert stored_text(sweep)


@pytest.mark.parametrize("part", range(PARTS))
def test_a_spoilt_spec_is_planned_or_told(folder: Path, part: int):
    path = folder / f"spec{part}.yaml"
    for text in BASES.values():
        parse_spec(text)
    seen: Counter[str] = Counter()

    @settings(
        max_examples=SPECS // PARTS, deadline=None, database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )  # fmt: skip
    @given(content=spoilt(BASES, KEYS))
    def look(content: bytes) -> None:
        path.write_bytes(content)
        with in_time():
            try:
                spec = read_spec(path)
            except SpecError as error:
                seen["refused"] += 1
                check_message(str(error), str(path))
                return
            seen["valid"] += 1
            try:
                plan(spec, folder)
            except SweepError as error:
                seen["not planned"] += 1
                assert _KEY.search(str(error)), str(error)
        if spec.model.path == "model" and seen["valid"] % 10 == 0:
            seen["as a command"] += 1
            with in_time():
                answer = ntksweep("plan", path)
            assert answer.status in (0, 2, 4)
            assert "Traceback" not in answer.errors
            assert answer.status == 0 or answer.errors.count("error: ") == 1

    if os.environ.get("CI"):
        seed(part)(look)  # else all parts would draw the same examples there
    with in_memory():
        look()
    assert seen["refused"] > SPECS // PARTS // 4
    assert seen["valid"] > SPECS // PARTS // 20
