"""Models that are divided among processes have the rows of whole models, on any number of processes, bit for bit."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from benchmarks.capture import demo_model
from finetune.errors import GroupError
from finetune.scorer import build_scorer
from finetune.sharding.group import ModelGroup
from finetune.sharding.launching import run_group
from finetune.sharding.processes import joined_group
from ntk_dist.capture import jacobian_rows
from tests.finetune.sharding.capturing import Case, capture, die_alone, fail_alone
from tests.tiny_models import ALL_TARGETS, FAMILIES, save_tiny

TEXTS = (
    "the film was great", "a dull plot", "good", "bad acting and a terrible story", "very very good but dull",
    "not bad", "the story is bright", "it was not a film", "terrible",
)  # fmt: skip
"""Five batches of two and less: neither two nor four processes have equally many."""


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """By name: models of all families with LoRA on all linear modules, MiniLM, other adapters, heads and outputs."""
    folder = tmp_path_factory.mktemp("models")
    found = {kind: Case(str(save_tiny(kind, folder / kind)), ALL_TARGETS[kind], TEXTS) for kind in FAMILIES}
    classifier = Case(str(save_tiny("bert", folder / "classifier", n_labels=2)), ("query", "value"), TEXTS)
    return found | {
        "minilm": Case(str(demo_model()), ALL_TARGETS["bert"], TEXTS),
        "dense": replace(classifier, adapter="none"),
        "five outputs": replace(found["gpt2"], outputs=5),
        **{f"{kind} again": replace(found[kind], checkpointing=True) for kind in ("llama", "bert", "t5_gated")},
        "pretrained head": replace(classifier, head="pretrained"),
    }


def rows_in(folder: Path, name: str, size: int) -> dict[str, torch.Tensor]:
    """Return the rows of a case by example; every example was captured by one process."""
    found: dict[str, torch.Tensor] = {}
    for rank in range(size):
        own = load_file(folder / f"{name}-{rank}.safetensors")
        assert not found.keys() & own.keys()
        found |= own
    return found


def whole(case: Case) -> dict[str, torch.Tensor]:
    """Return the rows of the whole model in one process, batch by batch."""
    scorer, tokens = build_scorer(*case.settings(), **case.options()), case.tokens()
    found = {}
    for positions in case.batches():
        scores, rows = jacobian_rows(lambda: scorer.logits(tokens.batch(positions)), scorer.groups)  # noqa: B023
        for place, position in enumerate(positions):
            found[f"{position}/scores"] = scores[place]
            found |= {f"{position}/{name}": values[place] for name, values in rows.items()}
    return found


@pytest.mark.parametrize("size", [2, 4])
def test_rows_are_those_of_whole_models_of_which_every_process_keeps_its_part(
    cases: dict[str, Case], size: int, tmp_path: Path
):
    held = run_group(size, capture, cases, tmp_path)
    for name, case in cases.items():
        found, expected = rows_in(tmp_path, name, size), whole(case)
        assert found.keys() == expected.keys()
        for part, values in expected.items():
            assert (found[part] - values).norm() <= 2e-5 * values.norm(), (name, part)
        for process in held:
            assert process[name]["before"] == process[name]["after"]
            # Parts are padded to equal sizes, a few numbers a weight.
            assert process[name]["after"] <= 1.01 * process[name]["all"] / size + 500


# --- groups that end


@pytest.mark.parametrize(
    ("work", "said"),
    [(die_alone, "process 1 of a model group of 2 was killed by SIGKILL"), (fail_alone, "ValueError: no such layer")],
)
def test_a_process_that_ends_alone_ends_its_group_by_name(work: Callable[[int], None], said: str):
    before = children()
    started = time.monotonic()
    with pytest.raises(GroupError, match=said):
        run_group(2, work, 1)
    assert time.monotonic() - started < 60
    assert children() <= before


def children() -> set[int]:
    """Return the processes below this one, but for the one that Python itself keeps to tidy up after others."""
    found = psutil.Process().children(recursive=True)
    return {child.pid for child in found if "multiprocessing.resource_tracker" not in " ".join(child.cmdline())}


def test_a_process_that_nobody_started_as_a_member_says_how():
    with pytest.raises(GroupError, match="torchrun --nproc-per-node"), joined_group():
        pass


# --- rounds


@given(n=st.integers(0, 40), size=st.integers(1, 7))
def test_every_piece_of_work_is_done_once_in_equally_many_rounds(n: int, size: int):
    work = list(range(n))
    by_rank = [list(ModelGroup(rank, size).rounds(work)) for rank in range(size)]
    assert len({len(rounds) for rounds in by_rank}) == 1
    assert sorted(piece for rounds in by_rank for piece, counts in rounds if counts) == work
    assert all(piece in work for rounds in by_rank for piece, _ in rounds)
