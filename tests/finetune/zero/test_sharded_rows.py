"""Models that are divided among processes have the rows of whole models, on any number of processes, bit for bit."""

import json
import logging
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import forkserver
from pathlib import Path
from typing import Literal

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from benchmarks.capture import demo_model
from finetune.errors import ProcessGroupError
from finetune.model.loading import load_model
from finetune.parallel.launching import run_group
from finetune.parallel.process_group import ProcessGroup
from finetune.parallel.processes import joined_group
from finetune.parallel.weights import zero_config
from finetune.scorers import build_scorer
from finetune.settings import ModelSettings, ShardingSettings
from ntk_dist.jacobian.capture import jacobian_rows
from tests.finetune.zero.capturing import Case, capture
from tests.finetune.zero.ending import die_alone, fail_alone
from tests.forked_group import run_forked_group
from tests.tiny_models import ALL_TARGETS, FAMILIES, save_tiny

TEXTS = (
    "the film was great", "a dull plot", "good", "bad acting and a terrible story", "very very good but dull",
    "not bad", "the story is bright", "it was not a film", "terrible",
)  # fmt: skip
"""Five batches of two and less: neither two nor four processes have equally many."""

IN_ALL_SIZES = ("minilm", "llama", "qwen3", "gpt2", "dense", "bfloat16")


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
        "several files": replace(found["llama"], model=str(saved_again(found["llama"], folder / "several"))),
        "pickled": replace(found["llama"], model=str(saved_again(found["llama"], folder / "pickled", pickled=True))),
        "bfloat16": replace(found["llama"], dtype="bfloat16"),
    }


def saved_again(case: Case, folder: Path, *, pickled: bool = False) -> Path:
    """Save a model in several files, in half precision, or in a file of PyTorch's own format."""
    shutil.copytree(case.model, folder)
    (folder / "model.safetensors").unlink()
    weights = load_file(Path(case.model) / "model.safetensors")
    if pickled:
        torch.save(weights, folder / "pytorch_model.bin")
        return folder
    files: dict[str, str] = {}
    for number, (name, weight) in enumerate(weights.items()):
        files[name] = f"model-{number % 3 + 1:05}-of-00003.safetensors"
        assert weight.dtype == torch.float32
    for file in set(files.values()):
        own = {name: weights[name].to(torch.bfloat16) for name in weights if files[name] == file}
        save_file(own, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


@dataclass(frozen=True)
class Run:
    """Results of a process group: rows in a folder, and the part of each model that each process held."""

    folder: Path
    held: list[dict[str, dict[str, int]]]


@pytest.fixture(scope="module", params=[2, 4])
def run(request: pytest.FixtureRequest, cases: dict[str, Case], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Capture cases in a group, all of them in the smaller one, on a machine without a compiler."""
    size = request.param
    chosen = cases if size == 2 else {name: cases[name] for name in IN_ALL_SIZES}
    folder, extensions = tmp_path_factory.mktemp("rows"), tmp_path_factory.mktemp("extensions")
    without_compiler = {"PATH": "/nowhere", "CXX": "/nowhere/c++", "TORCH_EXTENSIONS_DIR": str(extensions)}
    held = [own for own, _ in run_forked_group(size, capture, chosen, folder, {}, without_compiler)]
    assert list(extensions.iterdir()) == []
    return Run(folder, held)


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


def test_rows_are_those_of_whole_models_of_which_every_process_keeps_its_part(cases: dict[str, Case], run: Run):
    size = len(run.held)
    for name in run.held[0]:
        case = cases[name]
        found, expected = rows_in(run.folder, name, size), whole(case)
        assert found.keys() == expected.keys()
        if case.dtype == "float32":
            for group in {part.partition("/")[2] for part in expected}:
                of_group = {part: values for part, values in expected.items() if part.partition("/")[2] == group}
                assert distance(found, of_group) <= 2e-5 * norm(of_group), (name, group)
        else:
            assert all(found[part].dtype == values.dtype for part, values in expected.items())
            # what is rounded at other places differs as much as what is rounded differs from what is not
            exact = whole(replace(case, dtype="float32"))
            assert distance(found, expected) <= 2 * distance(expected, exact)
        for process in run.held:
            assert process[name]["before"] == process[name]["after"]
            # Parts are padded to equal sizes, a few numbers a weight.
            assert process[name]["after"] <= 1.01 * process[name]["all"] / size + 500


def norm(rows: dict[str, torch.Tensor]) -> float:
    """Return the norm of all rows together: that of one example can be zero but for rounding."""
    return sum(float(values.double().norm()) ** 2 for values in rows.values()) ** 0.5


def distance(rows: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Return the norm of the difference of the rows that `other` has."""
    return norm({part: rows[part].double() - values.double() for part, values in other.items()})


# --- damaged checkpoints


@pytest.fixture(scope="module")
def damaged(cases: dict[str, Case], tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """By what is wrong: a model in several files, and the error that it gives."""
    folder = tmp_path_factory.mktemp("damaged")

    def file_of(what: str) -> Path:
        return shutil.copytree(cases["several files"].model, folder / what) / "model-00002-of-00003.safetensors"

    missing, cut, header, swapped, nan = map(file_of, ["missing", "cut", "header", "swapped", "nan"])
    missing.unlink()
    cut.write_bytes(cut.read_bytes()[:-10])
    header.write_bytes(header.read_bytes()[:12] + b"\xff" + header.read_bytes()[13:])
    shutil.copy(swapped.with_name("model-00001-of-00003.safetensors"), swapped)
    weights = load_file(nan)
    name = next(name for name in weights if "layers.1" in name and weights[name].ndim == 2)
    weights[name][-1, -1] = torch.nan  # in the part of the last process
    save_file(weights, nan, metadata={"format": "pt"})
    return {
        "missing": (missing.parent, f"ModelLoadError: .*{missing}; get it again"),
        "cut": (cut.parent, f"ModelLoadError: .*{cut} cannot be read"),
        "header": (header.parent, f"ModelLoadError: .*{header} cannot be read"),
        "swapped": (swapped.parent, f"ModelLoadError: .*{swapped} holds no "),
        "nan": (nan.parent, f"NonFiniteError: the parameter {name} of the model"),
    }


def test_a_second_run_has_the_same_bits_and_damaged_checkpoints_fail_in_all_processes_as_in_one(
    cases: dict[str, Case], run: Run, damaged: dict[str, tuple[Path, str]], tmp_path: Path
):
    size = len(run.held)
    again = {name: cases[name] for name in ("minilm", "llama", "qwen3", "gpt2", "bfloat16")}
    # processes are what costs time: damage is looked for in the smaller group
    models = {what: ModelSettings(str(folder)) for what, (folder, _) in damaged.items() if size == 2}
    processes = run_forked_group(size, capture, again, tmp_path, models)
    for name in again:
        first, second = rows_in(run.folder, name, size), rows_in(tmp_path, name, size)
        assert all(torch.equal(first[part], second[part]) for part in first), name
    for what, model in models.items():
        error = damaged[what][1]
        with pytest.raises(ValueError, match=r"(?s).+") as alone:
            load_model(model, n_outputs=2, language_model=False, seed=0)
        for said in [*(errors[what] for _, errors in processes), f"{type(alone.value).__name__}: {alone.value}"]:
            assert re.match(error, said), (what, said)


# --- settings


def test_one_process_and_stage_0_have_nothing_to_divide():
    assert ShardingSettings(2).shards_weights
    assert not ShardingSettings(1).shards_weights
    assert not ShardingSettings(2, stage=0).shards_weights
    assert zero_config("float32", stage=0)["zero_optimization"] == {"stage": 0}


@pytest.mark.parametrize("offload", ["none", "cpu"])
def test_parts_go_to_the_host_where_that_is_asked_for(offload: Literal["none", "cpu"]):
    zero = zero_config("bfloat16", offload=offload, largest=800)["zero_optimization"]
    assert zero["stage3_max_live_parameters"] == 200
    assert zero.get("offload_param", {}).get("device", "none") == offload


# --- groups that end


@pytest.mark.parametrize(
    ("start", "work", "said"),
    [
        (run_group, die_alone, "process 1 of a process group of 2 was killed by SIGKILL"),
        (run_forked_group, fail_alone, "ValueError: no such layer"),
    ],
)
def test_a_process_that_ends_alone_ends_its_group_by_name(
    start: Callable[..., object], work: Callable[[int], None], said: str
):
    forkserver.ensure_running()
    before, shared, ports = children(), abandoned(), listening()
    started = time.monotonic()
    # pytest keeps what the launcher logs, with the traceback in which the launcher lives and listens
    logging.disable()
    try:
        with pytest.raises(ProcessGroupError, match=said):
            start(2, work, 1)
    finally:
        logging.disable(logging.NOTSET)
    assert time.monotonic() - started < 60
    assert children() <= before
    assert abandoned() <= shared
    assert listening() <= ports


def children() -> set[int]:
    """Return the processes below this one, but for the one that Python itself keeps to tidy up after others."""
    found = psutil.Process().children(recursive=True)
    return {child.pid for child in found if "multiprocessing.resource_tracker" not in " ".join(child.cmdline())}


def abandoned() -> set[str]:
    """Return what is in shared memory and belongs to no process any more; others work on this machine too."""
    mapped = set[int]()
    for file in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):
            # a semaphore is mapped by the name that it had before it got its own: the inode tells
            mapped |= {int(line.split()[4]) for line in file.read_text().splitlines()}
    return {file.name for file in Path("/dev/shm").glob("*") if file.stat().st_ino not in mapped}


def listening() -> set[int]:
    """Return the ports at which this process and those below it listen."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    sockets = [socket for process in processes for socket in process.net_connections("inet")]
    return {socket.laddr.port for socket in sockets if socket.status == psutil.CONN_LISTEN}


def test_a_process_that_nobody_started_as_a_member_says_how():
    with pytest.raises(ProcessGroupError, match="torchrun --nproc-per-node"), joined_group():
        pass


# --- rounds


@given(n=st.integers(0, 40), size=st.integers(1, 7))
def test_every_piece_of_work_is_done_once_in_equally_many_rounds(n: int, size: int):
    work = list(range(n))
    by_rank = [list(ProcessGroup(rank, size).rounds(work)) for rank in range(size)]
    assert len({len(rounds) for rounds in by_rank}) == 1
    assert sorted(piece for rounds in by_rank for piece, counts in rounds if counts) == work
    assert all(piece in work for rounds in by_rank for piece, _ in rounds)
