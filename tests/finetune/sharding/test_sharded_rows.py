"""Models that are divided among processes have the rows of whole models, on any number of processes, bit for bit."""

import json
import subprocess
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.capture import demo_model
from finetune.scorer import Scorer, build_scorer
from ntk_dist.capture import jacobian_rows
from tests.finetune.sharding.capturing import Case
from tests.tiny_models import ALL_TARGETS, Kind, save_tiny

TEXTS = (
    "the film was great", "a dull plot", "good", "bad acting and a terrible story", "very very good but dull",
    "not bad", "the story is bright",
)  # fmt: skip
"""Four batches of two and less: one too many for three processes, and an uneven end."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: save_tiny(kind, tmp_path_factory.mktemp(kind)) for kind in ALL_TARGETS}


def captured(case: Case, size: int, folder: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """Capture a case in a group of `size` processes; return rows by example, and what each process held."""
    folder.mkdir()
    (folder / "case.json").write_text(json.dumps(asdict(case)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)]
    program = Path(__file__).with_name("capturing.py")
    ended = subprocess.run(
        [*command, program, folder / "case.json", folder], capture_output=True, text=True, timeout=300, check=False,
        env=environment(),
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-4000:]
    found: dict[str, torch.Tensor] = {}
    for rank in range(size):
        own = load_file(folder / f"{rank}.safetensors")
        assert not found.keys() & own.keys()
        found |= own
    return found, [json.loads((folder / f"{rank}.json").read_text()) for rank in range(size)]


def environment() -> dict[str, str]:
    import os

    return os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).parents[3])}


def whole(case: Case) -> tuple[Scorer, dict[str, torch.Tensor]]:
    """Return the rows of the whole model in one process, batch by batch."""
    scorer, tokens = build_scorer(*case.settings(), **case.options()), case.tokens()
    found = {}
    for positions in case.batches():
        scores, rows = jacobian_rows(lambda: scorer.logits(tokens.batch(positions)), scorer.groups)  # noqa: B023
        for place, position in enumerate(positions):
            found[f"{position}/scores"] = scores[place]
            found |= {f"{position}/{name}": values[place] for name, values in rows.items()}
    return scorer, found


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], limit: float) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert (found[name] - values).norm() <= limit * values.norm(), name


@cache
def minilm() -> Case:
    return Case(str(demo_model()), ("query", "key", "value", "attention.output.dense", "intermediate.dense"), TEXTS)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("kind", [*ALL_TARGETS, "minilm"])
def test_rows_are_those_of_the_whole_model(folders: dict[str, Path], kind: Kind, size: int, tmp_path: Path):
    case = minilm() if kind == "minilm" else Case(str(folders[kind]), ALL_TARGETS[kind], TEXTS)
    found, held = captured(case, size, tmp_path / "group")
    assert_close(found, whole(case)[1], 2e-5)
    for process in held:
        for when in ("held", "held_after"):
            assert process[when]["own"] <= 1.02 * process[when]["all"] / size + 200 * size
