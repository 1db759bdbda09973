"""Costs are estimated before a sweep runs; a sweep that cannot fit is refused, with changes that would make it fit."""

import json
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from orchestrator.cli.render import human_seconds
from orchestrator.errors import BudgetError
from orchestrator.plan import estimate
from orchestrator.plan.estimate import Cost, costs, refuse_what_cannot_fit
from orchestrator.plan.plan import Plan
from orchestrator.spec import read_spec
from orchestrator.spec.quantities import human_bytes
from orchestrator.stages.capture import CAPTURE
from orchestrator.stages.gram import GRAM
from orchestrator.sweep.folder import ResultsFolder
from tests.orchestrator.sweeps import groups_of, make_sweep, ntksweep, plan_of, run_spec, survey_of

Disk = namedtuple("Disk", "total used free")


def with_groups(n_parameters: int) -> Any:
    return survey_of(groups=groups_of(2, ("query", "value"), n_parameters=n_parameters))


def by_kind(plan: Plan, folder: Path) -> dict[str, Cost]:
    return {cost.kind: cost for cost in costs(plan, ResultsFolder(folder))}


# --- costs


def test_every_kind_of_stage_has_its_cost(tmp_path: Path):
    found = by_kind(plan_of(), tmp_path)
    assert list(found) == ["dataset", "batching", "capture", "gram", "solve"]
    for cost in found.values():
        assert cost.missing == cost.stages > 0
        assert cost.disk_bytes > 0 or cost.kind == "batching"
        assert not cost.measured
    for kind in ("batching", "capture", "gram", "solve"):
        assert found[kind].flops > 0
        assert found[kind].memory_bytes > 0
        assert found[kind].seconds is not None


def test_a_finished_sweep_costs_nothing(finished: Path):
    ending = run_spec(finished)
    for cost in costs(ending.plan, ResultsFolder(read_spec(finished).folder)):
        assert cost.missing == 0
        assert cost.flops == cost.disk_bytes == cost.seconds == 0


def test_what_was_measured_serves_for_what_is_missing(tmp_path: Path, tiny_model: Path):
    path = make_sweep(tmp_path, model=tiny_model)
    run_spec(path)
    make_sweep(tmp_path, {"grid.seeds": [0, 1]}, model=tiny_model)
    answer = ntksweep("plan", path, "--json")
    assert answer.status == 0
    for cost in json.loads(answer.output)["stages"]:
        assert cost["measured"]
        assert 0 < cost["missing"] < cost["stages"]
        assert cost["seconds"] > 0


def test_workers_share_the_time_and_not_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(estimate, "_matmul_speed", lambda dtype, threads: 1e9)
    one = by_kind(plan_of({"compute.executor": "ray", "compute.workers": 1}), tmp_path)
    four = by_kind(plan_of({"compute.executor": "ray", "compute.workers": 4}), tmp_path)
    for kind in ("capture", "gram", "solve"):
        assert four[kind].seconds == pytest.approx(one[kind].seconds / 4)
        assert four[kind].memory_bytes == one[kind].memory_bytes


def test_more_work_costs_more(tmp_path: Path):
    base = by_kind(plan_of(), tmp_path)
    for change in ({"grid.n_train": [40]}, {"grid.seeds": [0, 1, 2]}):
        larger = by_kind(plan_of(change), tmp_path)
        for kind in ("capture", "gram", "solve"):
            assert larger[kind].flops > base[kind].flops
            assert larger[kind].disk_bytes > base[kind].disk_bytes
    vectors = by_kind(plan_of({"kernel.eigenvectors": True}), tmp_path)["solve"]
    assert vectors.flops > base["solve"].flops
    assert vectors.memory_bytes > base["solve"].memory_bytes


def test_disk_is_what_the_arrays_take(finished: Path):
    plan = run_spec(finished).plan
    folder = read_spec(finished).folder
    estimated = by_kind(plan, folder / "nothing-there")
    for kind, most in (("capture", 1.2), ("gram", 1.0)):
        sizes = [path.stat().st_size for path in (folder / "artifacts" / kind).glob("*.safetensors")]
        headers = [int.from_bytes(path.read_bytes()[:8], "little") + 8
                   for path in (folder / "artifacts" / kind).glob("*.safetensors")]  # fmt: skip
        arrays = sum(sizes) - sum(headers)
        assert arrays <= estimated[kind].disk_bytes * most
        # tiles at the edges are smaller than the others
        assert arrays >= estimated[kind].disk_bytes * 0.5


# --- refusals


def test_a_solve_that_does_not_fit_the_memory_says_what_would(tmp_path: Path):
    changes = {"grid.n_train": [3000], "compute.shard_examples": 256}
    plan = plan_of(changes | {"compute.memory_budget": "200MB"}, survey=with_groups(10_000))
    needed = max(plan.cost_of(stage).memory_bytes for stage in plan.stages if stage.kind == "solve")
    assert needed > 8 * 6000**2
    with pytest.raises(BudgetError) as raised:
        refuse_what_cannot_fit(plan, ResultsFolder(tmp_path / "results"))
    message = str(raised.value)
    assert f"a solve stage needs {human_bytes(needed)} and compute.memory_budget is 200.0 MB" in message
    assert "grid.n_train" in message
    roomy = plan_of(changes | {"compute.memory_budget": needed}, survey=with_groups(10_000))
    refuse_what_cannot_fit(roomy, ResultsFolder(tmp_path / "results"))


@pytest.mark.parametrize(("shard", "kind"), [(64, "capture"), (2000, "gram")])
def test_shards_that_do_not_fit_say_to_make_them_smaller(tmp_path: Path, shard: int, kind: str):
    size = 1_000_000 if kind == "capture" else 1000
    changes = {"grid.n_train": [2000], "compute.memory_budget": "100MB", "compute.shard_examples": shard}
    plan = plan_of(changes | {"kernel.outputs": "margin"}, survey=with_groups(size))
    with pytest.raises(BudgetError, match=rf"a {kind} stage needs .*; lower compute.shard_examples, or raise"):
        refuse_what_cannot_fit(plan, ResultsFolder(tmp_path / "results"))


@given(
    st.sampled_from(["10MB", "100MB", "1GB"]),
    st.integers(200, 3_000_000),  # as many as the kernel has rows at least, or no tiles are planned
    st.integers(2, 200),
    st.sampled_from(["full", "trace"]),
    st.sampled_from(["auto", "stored"]),
)
def test_automatic_shards_fit_wherever_one_example_does(
    budget: str, n_parameters: int, classes: int, outputs: str, rows: str
):
    changes = {
        "compute.shard_examples": None, "compute.memory_budget": budget, "kernel.outputs": outputs,
        "grid.n_train": [1], "task.n_eval": 1,
    }  # fmt: skip
    groups = groups_of(2, ("query", "value"), n_parameters=n_parameters)
    plan = plan_of(changes | {"compute.rows": rows}, survey=survey_of(groups=groups, n_outputs=classes))
    assume(plan.variants[0].sizes.shard_examples > 1)
    # whole shards, as a larger training set has them, without planning all of its tiles
    (variant,) = plan.variants
    stages = list({stage.kind: stage for stage in plan.stages if stage.of in (CAPTURE, GRAM)}.values())
    full = replace(
        plan,
        variants=(replace(variant, sizes=replace(variant.sizes, drawn_sets=(10_000,))),),
        variant_of={stage.stage_id: 0 for stage in stages},
    )
    for stage in stages:
        assert full.cost_of(stage).memory_bytes <= plan.sweep.spec.compute.memory_budget


def test_results_that_do_not_fit_the_disk_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Disk(10**9, 10**9 - 5000, 5000))
    with pytest.raises(BudgetError, match=r"the sweep leaves .* and the disk of .*results has 5.0 kB free; free some"):
        refuse_what_cannot_fit(plan_of(), ResultsFolder(tmp_path / "results"))


def test_a_finished_sweep_needs_no_disk(finished: Path, monkeypatch: pytest.MonkeyPatch):
    plan = run_spec(finished).plan
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Disk(10**9, 10**9, 0))
    refuse_what_cannot_fit(plan, ResultsFolder(read_spec(finished).folder))


def test_plan_and_run_both_refuse_and_leave_nothing(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch):
    path = make_sweep(tmp_path, model=tiny_model)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(10**9, 10**9 - 5000, 5000))
    for command in ("plan", "run"):
        answer = ntksweep(command, path)
        assert answer.status == 2
        assert "5.0 kB free" in answer.errors
        assert not (tmp_path / "results").exists()


# --- for people


@given(st.floats(0, 1e15))
def test_bytes_are_written_with_a_unit(count: float):
    text = human_bytes(count)
    number, unit = text.split()
    factor = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    assert float(number) * factor == pytest.approx(count, rel=0.06, abs=0.51)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (42, "42 s"), (600, "10 min"), (7200, "2.0 h")]
)
def test_times_are_written_with_a_unit(seconds: float, text: str):
    assert human_seconds(seconds) == text
