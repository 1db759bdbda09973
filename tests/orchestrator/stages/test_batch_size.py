"""`compute.batch_tokens: auto`: how many tokens fit is measured once and kept; numbers agree to rounding."""

import ctypes
import mmap
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from finetune.data import tokens
from finetune.model.prefix import PrefixCache
from finetune.parallel.process_group import ProcessGroup
from ntk_dist.jacobian.batches import length_buckets
from orchestrator.errors import SpecError, SweepError
from orchestrator.plan.estimate import costs
from orchestrator.spec import parse_spec, read_spec
from orchestrator.stages.batches import compute as batches
from orchestrator.stages.batches.memory import MOST_TOKENS, MemoryLine, batch_limit, fitting_tokens, peak_of
from orchestrator.stages.capture import compute as capture
from orchestrator.stages.context.work import Work
from orchestrator.stages.context.worker_state import WorkerState
from orchestrator.stages.head import compute as head
from orchestrator.store.artifacts import Artifact
from orchestrator.store.stage import Stage
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.model_memory import Device, fitting_notes, model_memory
from tests.orchestrator.sweeps import (
    SPEEDS,
    make_sweep,
    ntksweep,
    plan_of,
    results_of,
    run_spec,
    spec_of,
    survey_of,
    sweep_of,
    write_data,
)

AUTO: dict[str, Any] = {
    "compute.batch_tokens": "auto",
    "compute.shard_examples": 16,
    "grid.n_train": [20],
    "grid.seeds": [0, 1],
    "grid.layer_sets": ["all_layers", {"layers": [[1]]}],
    "head": {"kind": "ridge", "in_kernel": False},
    "finetune": {"learning_rate": 0.05, "epochs": 2, "batch_size": 4},
}
"""A head is fitted and the upper layer is trained above a frozen one, so that every kind of stage reads the batches."""


def found_in(spec: Path) -> list[Artifact]:
    store = ResultsFolder(read_spec(spec).folder).artifacts()
    return [store.open("batches", stage_id) for stage_id in sorted(store.finished("batches"))]


@pytest.fixture(scope="module")
def automatic(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The spec of a finished sweep that found its batches; nobody changes its results."""
    path = make_sweep(tmp_path_factory.mktemp("automatic"), AUTO, model=tiny_model)
    assert run_spec(path).report.failures == []
    return path


# --- a sweep


def test_cells_agree_with_those_of_batches_of_any_size(automatic: Path, tmp_path: Path, tiny_model: Path):
    fixed = make_sweep(tmp_path, AUTO | {"compute.batch_tokens": 16}, model=tiny_model)
    run_spec(fixed)
    ours, theirs = (results_of(path).cells.to_pandas() for path in (automatic, fixed))
    columns = [name for name in ours.select_dtypes("floating") if "seconds" not in name]
    assert len(ours) == len(theirs) == 8
    assert "train_loss" in columns
    np.testing.assert_allclose(ours[columns], theirs[columns], rtol=1e-9, atol=1e-9)
    assert set(ours["halvings"]) == {0}


def test_what_was_found_says_by_what(automatic: Path):
    found = found_in(automatic)
    assert len(found) == 2  # one a seed
    for artifact in found:
        facts = artifact.facts
        assert facts["longest"] <= 8
        assert facts["batch_tokens"] & (facts["batch_tokens"] - 1) == 0
        assert 0 < facts["batch_tokens"] <= MOST_TOKENS
        assert facts["limit_bytes"] == 100 * 10**6
        assert facts["row_bytes"] == 4 * 2 * 8 * sum(4 * [2 * 16])  # examples, outputs, bytes, LoRA's B of four modules


def test_running_again_computes_nothing_also_with_more_memory(automatic: Path):
    assert run_spec(automatic).report.computed == 0
    text = automatic.read_text()
    automatic.write_text(text.replace("100MB", "200MB"))
    assert run_spec(automatic).report.computed == 0
    automatic.write_text(text)


def test_every_stage_takes_its_batches_from_the_artifact_of_its_seed(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    path = make_sweep(tmp_path, AUTO | {"grid.seeds": [0]}, model=tiny_model)
    made: dict[str, set[int]] = {"capture": set(), "head": set(), "prefix": set()}

    def watch(module: Any, kind: str) -> None:
        def call(lengths: Sequence[int], *, batch_tokens: int, **options: Any) -> list[NDArray[np.int64]]:
            made[kind].add(batch_tokens)
            return length_buckets(lengths, batch_tokens=batch_tokens, **options)

        monkeypatch.setattr(module, "length_buckets", call)

    fill = PrefixCache.fill

    def filled(self: PrefixCache, *arguments: Any, batch_tokens: int, **options: Any) -> None:
        made["prefix"].add(batch_tokens)
        fill(self, *arguments, batch_tokens=batch_tokens, **options)

    monkeypatch.setattr(PrefixCache, "fill", filled)
    watch(capture, "capture")
    watch(head, "head")
    monkeypatch.setattr(batches, "fitting_tokens", lambda *_, least: 4 * least)
    run_spec(path)
    (first,) = (artifact.facts for artifact in found_in(path))
    assert first["batch_tokens"] == 4 * first["longest"]
    assert all(taken == {first["batch_tokens"]} for taken in made.values())

    # Rows that were lost come from the same batches, whatever would be found now.
    monkeypatch.setattr(batches, "fitting_tokens", lambda *_, least: 2 * least)
    artifacts = read_spec(path).folder / "artifacts"
    before = {file.name: file.read_bytes() for file in (artifacts / "capture").glob("*.safetensors")}
    for kind in ("capture", "gram", "solve", "finetune", "compare"):
        shutil.rmtree(artifacts / kind)
    made["capture"].clear()
    run_spec(path)
    assert made["capture"] == {first["batch_tokens"]}
    assert before == {file.name: file.read_bytes() for file in (artifacts / "capture").glob("*.safetensors")}

    # A new seed finds its own.
    path.write_text(path.read_text().replace("seeds:\n  - 0\n", "seeds:\n  - 0\n  - 1\n"))
    made["capture"].clear()
    run_spec(path)
    (second,) = (artifact.facts for artifact in found_in(path) if artifact.facts != first)
    assert second["batch_tokens"] == 2 * second["longest"]
    assert made["capture"] == {second["batch_tokens"]}


def test_a_batch_that_does_not_fit_after_all_is_halved(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    path = make_sweep(tmp_path, AUTO | {"grid.seeds": [0], "finetune": None}, model=tiny_model)
    pad = tokens.pad

    def limited(sequences: Sequence[Any], **options: Any) -> Any:
        if len(sequences) > 1 and max(map(len, sequences)) * len(sequences) > 20:
            raise MemoryError("no room")
        return pad(sequences, **options)

    monkeypatch.setattr(batches, "SEVERAL", 1)
    monkeypatch.setattr(tokens, "pad", limited)
    ending = run_spec(path)
    assert ending.report.failures == []
    ((found, longest),) = ((each.facts["batch_tokens"], each.facts["longest"]) for each in found_in(path))
    assert longest <= found <= 20 or found == longest
    assert set(results_of(path).cells.to_pandas()["halvings"]) == {0}


@pytest.mark.parametrize("other", [0, 10**12])
def test_a_group_takes_what_fits_the_process_with_the_least_memory(automatic: Path, other: int):
    class Pair(ProcessGroup):
        """Two processes: the other one has no memory, or takes far too much of it."""

        def gathered(self, value: Any) -> list[Any]:
            return [value, other]

    spec = read_spec(automatic)
    folder = ResultsFolder(spec.folder)
    plan = run_spec(automatic).plan
    work = Work(WorkerState(plan.sweep, folder), process_group=Pair())
    facts = batches.compute(next(stage for stage in plan.stages if stage.kind == "batches"), work).facts
    assert facts["batch_tokens"] == facts["longest"]
    assert facts["limit_bytes"] == min(other, spec.compute.memory_budget)


# --- what is measured


@pytest.mark.parametrize("megabytes", [20, 80])
def test_what_is_taken_on_a_processor_is_seen_whatever_was_taken_before(megabytes: int):
    processor = torch.device("cpu")
    torch.ones(10**8, dtype=torch.uint8)  # larger than both, and given back
    for _ in range(2):
        taken = peak_of(lambda: torch.ones(megabytes * 10**6, dtype=torch.uint8), processor)
        assert megabytes * 10**6 == pytest.approx(taken, rel=0.1)


def test_a_heap_that_keeps_what_was_freed_hides_nothing():
    """As the heap of a thread does, and any heap with something else behind it."""
    libc = ctypes.CDLL("libc.so.6")
    libc.malloc.restype = ctypes.c_void_p

    def use(size: int) -> None:
        block = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(size)))
        ctypes.memset(block, 1, size)
        libc.free(block)

    def measure() -> list[int]:
        use(31 * 10**6)  # from now on glibc takes smaller blocks from the heap
        return [peak_of(lambda: use(20 * 10**6), torch.device("cpu")) for _ in range(3)]

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(measure).result() == [pytest.approx(20 * 10**6, rel=0.1)] * 3


def of_the_system(megabytes: int) -> mmap.mmap:
    """Return memory that goes back to the system as soon as it is dropped."""
    memory = mmap.mmap(-1, megabytes * 10**6)
    memory.write(bytes(len(memory)))
    return memory


def test_memory_that_others_give_back_meanwhile_hides_nothing():
    processor = torch.device("cpu")
    others = [of_the_system(30)]

    def batch() -> torch.Tensor:
        others.clear()
        return torch.ones(40 * 10**6, dtype=torch.uint8)

    assert peak_of(batch, processor) == pytest.approx(40 * 10**6, rel=0.1)


def test_a_pass_whose_memory_was_there_already_hides_nothing():
    processor = torch.device("cpu")
    kept: list[torch.Tensor] = []

    def batch() -> torch.Tensor:
        """Take nothing the first time, as where another thread's memory came free at the right moment."""
        if not kept:
            kept.append(torch.empty(0))
            return kept[0]
        return torch.ones(40 * 10**6, dtype=torch.uint8)

    assert peak_of(batch, processor) == pytest.approx(40 * 10**6, rel=0.1)


def test_memory_that_is_given_back_all_the_time_makes_a_batch_look_larger():
    processor = torch.device("cpu")
    others = [of_the_system(40) for _ in range(8)]

    def batch() -> torch.Tensor:
        others.pop()
        return torch.ones(36 * 10**6, dtype=torch.uint8)

    assert peak_of(batch, processor) >= 36 * 10**6


def test_a_system_that_does_not_tell_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("orchestrator.stages.batches.memory.reset_peak_memory", lambda: False)
    with pytest.raises(SweepError, match=r"batch_tokens: auto .* give a number"):
        peak_of(lambda: None, torch.device("cpu"))


def test_a_gpu_gives_most_of_what_is_free_or_kept_by_torch(monkeypatch: pytest.MonkeyPatch):
    seen = {"mem_get_info": (700, 1000), "memory_reserved": 250, "memory_allocated": 150, "max_memory_allocated": 190}
    for name, value in seen.items():
        monkeypatch.setattr(torch.cuda, name, lambda _device, value=value: value)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _device: None)
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda _device: 1.0)
    assert batch_limit(torch.device("cuda"), budget=10) == 640
    assert batch_limit(torch.device("cpu"), budget=10) == 10
    assert peak_of(lambda: None, torch.device("cuda")) == 40


# --- the spec and the plan


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("atuo", "line 2, compute.batch_tokens: `atuo` is not auto; did you mean `auto`?"),
        ("0", "line 2, compute.batch_tokens: `0` must be greater than 0"),
        ("1.5", "line 2, compute.batch_tokens: `1.5` is not a whole number"),
    ],
)
def test_what_is_no_batch_size_is_told_as_what_it_was_meant_to_be(given: str, message: str):
    with pytest.raises(SpecError) as error:
        parse_spec(f"compute:\n  batch_tokens: {given}\n")
    assert message in str(error.value)
    assert str(error.value).count("batch_tokens") == 1


def adapter_seed_of(stage: Stage) -> int:
    rows = stage.parameters if stage.kind == "batches" else getattr(stage.parameters, "rows", stage.parameters)
    return int(rows.scorer.adapter_seed)


def test_only_auto_plans_a_search():
    fitted = {"head": {"kind": "ridge"}, "model.dtype": "bfloat16", "grid.seeds": [0, 1]}
    number, automatic = (plan_of({"compute.batch_tokens": value} | fitted) for value in (2048, "auto"))
    assert all(stage.kind != "batches" and "batches" not in stage.inputs for stage in number.stages)
    assert len(automatic.stages) == len(number.stages) + 2
    of_seed = {adapter_seed_of(stage): stage for stage in automatic.stages if stage.kind == "batches"}
    for stage in automatic.stages:
        if stage.kind in ("head", "precision", "capture"):
            ((_, stage_id),) = stage.inputs["batches"]
            assert stage_id == of_seed[adapter_seed_of(stage)].stage_id


def test_what_is_trained_together_or_combined_reads_the_batches_of_each_part(tmp_path: Path, tiny_model: Path):
    together = {
        "learning_rate": 0.05, "epochs": 1, "batch_size": 4, "stacked_cells": 4, "stacked_across": ["seeds"],
        "combinations": {"coefficients": [0.5]},
    }  # fmt: skip
    changes = {
        "compute.batch_tokens": "auto", "task.data": None, "finetune": together, "grid.layer_sets": [{"layers": [[1]]}],
        "grid.tasks": {"films": {"data": "films.parquet"}, "books": {"data": "data.parquet"}}, "grid.seeds": [0, 1],
    }  # fmt: skip
    path = make_sweep(tmp_path, changes, model=tiny_model)
    write_data(tmp_path / "films.parquet", seed=1)
    ending = run_spec(path)
    assert ending.report.failures == []
    roles = {
        (stage.kind, *sorted(role for role in stage.inputs if role.startswith("batches")))
        for stage in ending.plan.stages
    }
    assert ("finetune", "batches.0", "batches.1") in roles
    assert ("combine", "batches.a", "batches.b") in roles
    assert len(found_in(path)) == 4


def test_a_plan_tells_the_least_that_must_fit_and_that_more_is_chosen(tmp_path: Path):
    auto = {"compute.batch_tokens": "auto"}
    assert model_memory(spec_of(auto), survey_of()) == model_memory(spec_of({"compute.batch_tokens": 16}), survey_of())
    notes = fitting_notes(sweep_of(auto), survey_of(), Device(10**9, "GPU"))
    assert "of activations for 16 tokens (larger batches are chosen to fit), a process takes" in notes[1]
    (cost,) = [cost for cost in costs(plan_of(auto), ResultsFolder(tmp_path), SPEEDS) if cost.kind == "batches"]
    assert (cost.stages, cost.missing) == (1, 1)
    assert cost.flops > 0


def test_the_command_plans_a_sweep_that_finds_its_batches(tmp_path: Path, tiny_model: Path):
    answer = ntksweep("plan", make_sweep(tmp_path, AUTO, model=tiny_model))
    assert answer.status == 0, answer.errors
    assert "batches" in answer.output


# --- the search


@given(st.floats(0, 1e9), st.floats(0, 1e6), st.floats(0, 1e12), st.integers(1, 100_000), st.integers(1, 200_000))
def test_the_largest_power_of_two_that_fits_is_found(
    fixed: float, per_token: float, limit: float, least: int, most: int
):
    line = MemoryLine(fixed, per_token)
    chosen = fitting_tokens(line, limit, least=least, most=most)
    assert chosen >= least
    if chosen > least:
        assert chosen & (chosen - 1) == 0
        assert chosen <= most
        assert line(chosen) <= limit
    larger = 1 << chosen.bit_length()
    assert larger > most or line(larger) > limit


@given(st.lists(st.integers(0, 100), min_size=20, max_size=20), st.integers(0, 100), st.integers(1, 1000))
def test_no_batch_beyond_the_limit_is_chosen_whatever_its_memory(sizes: list[int], limit: int, least: int):
    chosen = fitting_tokens(lambda tokens: sizes[tokens.bit_length()], limit, least=least)
    assert chosen == least or sizes[chosen.bit_length()] <= limit


@given(st.integers(0, 10**9), st.integers(0, 10**6), st.integers(1, 512), st.integers(2, 8))
def test_a_line_through_two_batches_is_theirs(fixed: int, per_token: int, longest: int, several: int):
    measured = [(n * longest, fixed + per_token * n * longest) for n in (1, several)]
    line = MemoryLine.through(measured)
    assert [line(tokens) for tokens, _ in measured] == pytest.approx([taken for _, taken in measured])
    assert line.per_token == pytest.approx(per_token, abs=1e-3)


@pytest.mark.parametrize("measured", [[(10, 500)], [(10, 500), (40, 300)]])
def test_a_line_never_falls(measured: list[tuple[int, int]]):
    line = MemoryLine.through(measured)
    assert line(10) >= 500
    assert line(1000) >= line(10)
