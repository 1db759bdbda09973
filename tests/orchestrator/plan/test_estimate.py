"""Costs are estimated before a sweep runs; a sweep that cannot fit is refused, with changes that would make it fit."""

import json
import re
import shutil
from collections import namedtuple
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from orchestrator.cli.render import human_seconds
from orchestrator.errors import BudgetError
from orchestrator.plan.estimate import Cost, costs, refuse_what_cannot_fit
from orchestrator.plan.plan import Plan
from orchestrator.plan.probe import probed_speeds
from orchestrator.plan.speeds import speeds_of
from orchestrator.plan.starting import LIBRARIES, WORKERS_UP, starting
from orchestrator.spec import read_spec
from orchestrator.spec.quantities import human_bytes
from orchestrator.stages.capture import CAPTURE
from orchestrator.stages.gram import GRAM
from orchestrator.store.history import History
from orchestrator.store.sealed import sealed
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.gpu_kind import Gpu
from orchestrator.sweep.layer_sets import HEAD, GroupFacts
from tests.orchestrator.sweeps import SPEEDS, groups_of, make_sweep, ntksweep, plan_of, plan_spec, run_spec, survey_of

Disk = namedtuple("Disk", "total used free")


def with_groups(n_parameters: int) -> Any:
    return survey_of(groups=groups_of(2, ("query", "value"), n_parameters=n_parameters))


def by_kind(plan: Plan, folder: Path, **options: Any) -> dict[str, Cost]:
    return {cost.kind: cost for cost in costs(plan, ResultsFolder(folder), SPEEDS, **options)}


# --- costs


def test_every_kind_of_stage_has_its_cost(tmp_path: Path):
    found = by_kind(plan_of(), tmp_path)
    assert list(found) == ["dataset", "batching", "capture", "gram", "solve"]
    for cost in found.values():
        assert cost.missing == cost.stages > 0
        assert cost.written_bytes > 0 or cost.kind == "batching"
        assert not cost.measured
    for kind in ("batching", "capture", "gram", "solve"):
        assert found[kind].flops > 0
        assert found[kind].memory_bytes > 0
        assert found[kind].seconds is not None


def test_a_finished_sweep_costs_nothing(finished: Path):
    ending = run_spec(finished)
    for cost in costs(ending.plan, ResultsFolder(read_spec(finished).folder), SPEEDS):
        assert cost.missing == 0
        assert cost.flops == cost.read_bytes == cost.written_bytes == cost.seconds == 0


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


def test_times_of_a_journal_grow_with_what_is_missing(tmp_path: Path, tiny_model: Path):
    path = make_sweep(tmp_path, {"grid.layer_sets": ["each_layer"]}, model=tiny_model)
    ran = run_spec(path)
    folder = ResultsFolder(read_spec(path).folder)
    history = History(folder.journals)
    history.update()
    taken = history.stage_seconds()
    larger = plan_spec(make_sweep(tmp_path, model=tiny_model))
    solves = [stage for stage in larger.stages if stage.kind == "solve"]
    done, todo = (
        [larger.cost_of(stage) for stage in solves if (stage.stage_id in taken) is there] for there in (True, False)
    )
    seconds = sum(taken[stage.stage_id] for stage in ran.plan.stages if stage.kind == "solve")
    expected = seconds * sum(map(SPEEDS.seconds, todo)) / sum(map(SPEEDS.seconds, done))
    found = by_kind(larger, folder.root, workers=1)["solve"]
    assert (len(done), len(todo), found.missing) == (2, 1, 1)
    assert found.seconds == pytest.approx(expected)


def test_workers_share_the_time_and_not_the_memory(tmp_path: Path):
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
            assert larger[kind].written_bytes > base[kind].written_bytes
            assert kind == "capture" or larger[kind].read_bytes > base[kind].read_bytes
    vectors = by_kind(plan_of({"kernel.eigenvectors": True}), tmp_path)["solve"]
    assert vectors.flops > base["solve"].flops
    assert vectors.memory_bytes > base["solve"].memory_bytes


@pytest.mark.parametrize("rows", ["stored", "resident"])
def test_rows_cost_a_backward_pass_down_to_the_lowest_layer_that_has_one(tmp_path: Path, rows: str):
    lower, upper = (
        plan_of(
            {
                "grid.layer_sets": [{"layers": [[layer]]}],
                "head.in_kernel": False,
                "kernel.outputs": "full",
                "compute.rows": rows,
            }
        )
        for layer in (0, 1)
    )
    rows_per_example = lower.variants[0].sizes.rows_per_example
    kind = "capture" if rows == "stored" else "gram"
    taken = [
        sum(plan.cost_of(stage).model_flops for stage in plan.stages if stage.kind == kind) for plan in (lower, upper)
    ]
    assert rows_per_example == 2
    assert taken[1] / taken[0] == pytest.approx((1 + 2 * 0.5) / (1 + 2))


def test_a_model_without_layers_is_priced_too(tmp_path: Path):
    groups = [GroupFacts(name, None, name, 64) for name in ("embed.projection", "pooler.dense", HEAD)]
    training = {"learning_rate": 0.1, "epochs": 4, "batch_size": 4}
    plan = plan_of({"grid.layer_sets": ["each_target"], "finetune": training}, survey=survey_of(groups=groups))
    assert plan.variants[0].n_layers == 0
    found = by_kind(plan, tmp_path)
    assert found["capture"].seconds > 0
    assert found["finetune"].seconds > 0


def test_disk_is_what_the_arrays_take(finished: Path):
    plan = run_spec(finished).plan
    folder = read_spec(finished).folder
    estimated = by_kind(plan, folder / "nothing-there")
    for kind in ("capture", "gram"):
        sizes = [path.stat().st_size for path in (folder / "artifacts" / kind).glob("*.safetensors")]
        headers = [int.from_bytes(path.read_bytes()[:8], "little") + 8
                   for path in (folder / "artifacts" / kind).glob("*.safetensors")]  # fmt: skip
        arrays = sum(sizes) - sum(headers)
        # captures align their arrays, and tiles hold the outputs of their examples
        assert arrays == pytest.approx(estimated[kind].written_bytes, rel=0.2)


def test_tiles_read_the_rows_of_shards_that_fit_once_and_others_on_both_sides(
    finished: Path, monkeypatch: pytest.MonkeyPatch
):
    plan = run_spec(finished).plan
    folder = read_spec(finished).folder
    rows = {path.name.partition(".")[0]: path for path in (folder / "artifacts" / "capture").glob("*.safetensors")}
    tiles = [stage for stage in plan.stages if stage.kind == "gram"]
    there = sum(path.stat().st_size for path in rows.values())
    assert 0.5 * there < sum(plan.cost_of(stage).read_bytes for stage in tiles) < there
    monkeypatch.setattr("orchestrator.stages.gram.costs.making_bytes", lambda *_: 10**8)
    for stage in tiles:
        sides = {stage.inputs[side][0][1] for side in ("left", "right")}
        there = sum(rows[side].stat().st_size for side in sides)
        assert 0.5 * there < plan.cost_of(stage).read_bytes < there


def test_evaluations_count_as_training_does():
    training = {"finetune": {"learning_rate": 0.1, "epochs": 4, "batch_size": 4}}
    often, seldom = (
        by_kind(plan_of(training | {"finetune.num_evaluations": steps}), Path("nothing"))["finetune"]
        for steps in (64, 1)
    )
    assert often.flops > 1.5 * seldom.flops
    assert often.written_bytes > seldom.written_bytes


def test_a_gpu_is_told_what_moves_and_what_it_holds(tmp_path: Path):
    here, there = (by_kind(plan_of({"compute.device": device}), tmp_path) for device in ("cpu", "cuda"))
    for kind in ("capture", "gram"):
        assert here[kind].moved_bytes == here[kind].device_bytes == 0
        assert there[kind].moved_bytes >= there[kind].written_bytes > 0
        assert there[kind].device_bytes > 0


def test_times_are_unknown_for_a_gpu_that_is_neither_here_nor_noted(tmp_path: Path):
    spec = plan_of({"compute.device": "cuda"}).sweep.spec
    folder = ResultsFolder(tmp_path)
    assert speeds_of(spec, folder) is None
    assert all(cost.seconds is None for cost in costs(plan_of(), folder, None))
    folder.gpu_path.parent.mkdir(parents=True, exist_ok=True)
    folder.gpu_path.write_bytes(sealed(asdict(Gpu("NVIDIA H100 80GB HBM3", "9.0", 132, 80 << 30))))
    found = speeds_of(spec, folder)
    assert found is not None
    assert found.source == "published speeds of NVIDIA H100 80GB HBM3"
    assert found.products > 1e13


def test_a_probe_measures_the_model_and_the_machine(tmp_path: Path, tiny_model: Path):
    path = make_sweep(tmp_path, model=tiny_model)
    answer = ntksweep("plan", path, "--probe")
    assert answer.status == 0
    assert "estimated from a probe (~)" in answer.output
    assert not ResultsFolder(read_spec(path).folder).journals.exists()


def test_a_probe_measures_what_speeds_differ_in(tmp_path: Path, tiny_model: Path):
    plan = plan_spec(make_sweep(tmp_path, model=tiny_model))
    found = probed_speeds(plan, ResultsFolder(tmp_path / "results"))
    for each in ("model", "products", "memory", "disk"):
        assert 1e6 < getattr(found, each) < 1e13
    assert 0 <= found.layer_pass < 0.1


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


# --- starting


def test_the_time_to_start_is_a_usual_one_until_a_run_has_taken_it(tmp_path: Path, tiny_model: Path):
    path = make_sweep(tmp_path, model=tiny_model)
    before = ntksweep("plan", path, "--json")
    assert json.loads(before.output)["starting"] == {"workers_up": 0.0, "libraries": LIBRARIES, "measured": False}
    run_spec(path)
    folder = ResultsFolder(read_spec(path).folder)
    assert json.loads(ntksweep("plan", path, "--json").output)["starting"] is None  # there is nothing to start for
    ran = [json.loads(line) for each in folder.journals.glob("*.jsonl") for line in each.read_text().splitlines()]
    (began,) = [event["time"] for event in ran if event["event"] == "run" and event["phase"] == "began"]
    loaded = {
        "time": began + 0.001,
        "event": "finished",
        "kind": "dataset",
        "stage": "",
        "seconds": 0,
        "loading": 0.001,
    }
    (folder.journals / "worker.jsonl").write_text(json.dumps(loaded) + "\n")
    make_sweep(tmp_path, {"grid.seeds": [0, 1]}, model=tiny_model)
    answer = ntksweep("plan", path)
    assert re.search(r"^starting +- .* [\d.]+ s$", answer.output, re.MULTILINE), answer.output
    assert re.search(r"^about [\d.]+ s on 1 worker, [\d.]+ s of it for (starting|loading)", answer.output, re.MULTILINE)


def test_ray_is_part_of_the_time_to_start(tmp_path: Path):
    found = starting(plan_of({"compute.executor": "ray"}), ResultsFolder(tmp_path))
    assert found is not None
    assert found.seconds == WORKERS_UP["ray"] + LIBRARIES
