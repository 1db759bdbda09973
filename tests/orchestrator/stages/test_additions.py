"""Layers added to layer sets: every number against numpy, bounds that fail a run, and sweeps that they join later."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ntk_dist.spectrum.bounds import AddedBlockBounds, added_block_bounds
from orchestrator.errors import BrokenBoundError, ResultsError
from orchestrator.plan.plan import Plan
from orchestrator.spec import read_spec
from orchestrator.stages.additions import compute as stage_module
from orchestrator.stages.additions.planning import Additions
from orchestrator.stages.context.failures import FailureClass
from orchestrator.sweep.folder import ResultsFolder
from tests.faults.tables import assert_same_tables, numbers
from tests.orchestrator.sweeps import groups_of, make_sweep, ntksweep, plan_of, results_of, run_spec, spec_of, survey_of
from tests.tiny_models import save_tiny

FLOAT = np.finfo(np.float64).eps
CHOICES: list[Any] = ["each_layer", "pairs", {"groups": [["0.query"], ["0.value", "2.query"]]}]
# Without the head and at rank 1 no set has as many parameters as 40 rows: singular kernels, solved without blocks.
CHANGES: dict[str, Any] = {
    "kernel.additions": True, "grid.layer_sets": CHOICES, "grid.n_train": [6, 20],
    "head.in_kernel": False, "adapter.rank": 1,
}  # fmt: skip
KERNELS: dict[str, dict[str, Any]] = {
    "full": {"grid.seeds": [0, 1]},
    "trace": {"kernel.outputs": "trace"},
    "signs of the margin, with the head": {
        "kernel.outputs": "margin", "kernel.kind": "sign", "head.in_kernel": True,
    },
    "only some groups have blocks": {
        "grid.layer_sets": [{"groups": [["0.query"], ["0.value", "1.query"], ["2.query", "2.value"]]}],
        "grid.n_train": [6],
    },
    "float32": {"model.dtype": "float32", "compute.gram_dtype": "float32"},
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("bert", tmp_path_factory.mktemp("deep") / "model", layers=3, hidden=8)


def adding(folder: Path, model: Path, changes: dict[str, Any] | None = None) -> Path:
    return make_sweep(folder, CHANGES | (changes or {}), model=model)


@pytest.fixture(scope="module")
def with_head(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """The spec of a finished sweep whose kernels have full rank; nobody changes its results."""
    changes = {"head.in_kernel": True, "grid.layer_sets": ["all_layers", *CHOICES]}
    path = adding(tmp_path_factory.mktemp("with_head"), model, changes)
    assert not run_spec(path).report.failures
    return path


def kernels_of(spec: Path, plan: Plan, seed: int, n_train: int) -> dict[str, np.ndarray]:
    """Return the kernel of every group, (M, M), by numpy in float64 from the rows that were captured."""
    store, kernel = ResultsFolder(read_spec(spec).folder).artifacts(), plan.sweep.spec.kernel
    shards = [
        store.open(stage.kind, stage.stage_id)
        for stage in plan.stages
        if stage.kind == "capture"
        and stage.parameters.split == "train"
        and stage.parameters.rows.scorer.adapter_seed == seed
    ]
    found = {}
    for group in plan.variants[0].sizes.groups:
        J = np.concatenate([np.array(shard.array(group), dtype=np.float64) for shard in shards])
        J = np.sign(J) if kernel.kind == "sign" else J
        if kernel.outputs == "trace":
            outputs = [J[output::2] for output in range(2)]
            K = sum(each @ each.T for each in outputs) / 2
        else:
            K = J @ J.T
        M = n_train * plan.variants[0].sizes.kernel_rows_per_example
        found[group] = K[:M, :M]
    return found


def expected_row(K: np.ndarray, S: np.ndarray, sigma: float, eps: tuple[float, float]) -> dict[str, float]:
    """Return what a row of the table should say of a block S added to K."""
    s, U = np.linalg.eigh(K)
    block, both = np.linalg.eigvalsh(S), np.linalg.eigvalsh(K + S)

    def condition(largest: float, smallest: float) -> float:
        return (largest + sigma) / (max(smallest, 0.0) + sigma)

    def floor(values: np.ndarray) -> float:
        return len(values) * eps[1] * values[-1] + (8 * eps[0]) ** 2 * values.sum()

    low, high = U[:, s <= s[0] + floor(s)], U[:, s >= s[-1] - floor(s)]
    lowest, highest = np.linalg.eigvalsh(low.T @ (K + S) @ low)[0], np.linalg.eigvalsh(high.T @ (K + S) @ high)[-1]
    smallest = s[0] + block[0] + sigma
    return {
        "kernel_sigma_max": s[-1], "kernel_sigma_min": s[0], "kernel_condition_number": condition(s[-1], s[0]),
        "block_sigma_max": block[-1], "block_sigma_min": block[0],
        "sigma_max": both[-1], "sigma_min": both[0], "noise_floor": floor(both),
        "sigma_max_lower": max(s[-1] + block[0], s[0] + block[-1]), "sigma_max_upper": s[-1] + block[-1],
        "sigma_min_lower": s[0] + block[0], "sigma_min_upper": min(s[0] + block[-1], s[-1] + block[0]),
        "condition_number": condition(both[-1], both[0]),
        "condition_number_upper": (s[-1] + block[-1] + sigma) / smallest if smallest > 0 else np.inf,
        "sigma_max_first_order": highest, "sigma_min_first_order": lowest,
        "condition_number_first_order": condition(highest, lowest), "sigma": sigma,
    }  # fmt: skip


# --- numbers


@pytest.mark.parametrize("name", KERNELS)
def test_every_number_is_that_of_plain_matrices(name: str, tmp_path: Path, model: Path):
    spec = adding(tmp_path, model, KERNELS[name])
    ending = run_spec(spec)
    assert not ending.report.failures
    plan, read = ending.plan, read_spec(spec)
    sets = {layer_set.name: layer_set.groups for layer_set in plan.variants[0].layer_sets}
    parameters = dict(zip(plan.variants[0].sizes.groups, plan.variants[0].sizes.group_parameters, strict=True))
    rows = results_of(spec).additions.to_arrow().to_pylist()
    single = name == "float32"
    tolerance = 3e-6 if single else 1e-11
    jacobian_eps = gram_eps = float(np.finfo(np.float32 if single else np.float64).eps)
    seen = []
    for row in rows:
        kernels = kernels_of(spec, plan, row["seed"], row["n_train"])
        groups, lacking = sets[row["layer_set"]], row["added_groups"]
        assert lacking == [
            g for g in plan.variants[0].sizes.groups if g.startswith(f"{row['added_layer']}.") and g not in groups
        ]
        assert row["n_parameters_added"] == sum(parameters[group] for group in lacking)
        assert (row["sweep"], row["kernel"]) == (read.name, read.kernel.kind)
        K, S = (sum(kernels[group] for group in each) for each in (groups, lacking))
        expected = expected_row(K, S, read.kernel.sigma, (jacobian_eps, gram_eps))
        size = expected["kernel_sigma_max"] + expected["block_sigma_max"]
        for column, value in expected.items():
            # Eigenvalues are as exact as the largest of them, condition numbers as their denominator.
            moved = tolerance * size
            if column.startswith(("condition", "kernel_condition")):
                moved *= value / read.kernel.sigma
            if single and "first_order" in column:
                continue  # which eigenvalues rounding has mixed is itself a matter of rounding
            assert row[column] == pytest.approx(value, abs=moved), (row["layer_set"], row["added_layer"], column)
        seen.append((row["seed"], row["n_train"], row["layer_set"], row["added_layer"]))
    # What every layer set lacks, in the order of the grid.
    assert seen == [
        (seed, n_train, layer_set.name, layer)
        for seed in read.grid.seeds
        for n_train in read.grid.n_train
        for layer_set in plan.variants[0].layer_sets
        for layer in range(3)
        if any(g.startswith(f"{layer}.") and g not in layer_set.groups for g in plan.variants[0].sizes.groups)
    ]


def test_conditions_are_those_of_the_layer_sets_that_the_sums_are(with_head: Path):
    cells = {
        (row["seed"], row["n_train"], row["layer_set"]): row
        for row in results_of(with_head).cells.to_arrow().to_pylist()
    }
    sums = {("layers:0", 1): "layers:0-1", ("layers:2", 0): "layers:0,2", ("layers:0-1", 2): "layers:0-2"}
    checked = 0
    for row in results_of(with_head).additions.to_arrow().to_pylist():
        before = cells[row["seed"], row["n_train"], row["layer_set"]]
        assert row["kernel_condition_number"] == pytest.approx(before["condition_number_fixed_sigma"], rel=1e-6)
        assert row["kernel_sigma_max"] == pytest.approx(before["sigma_max"], rel=1e-12)
        if (row["layer_set"], row["added_layer"]) in sums:
            after = cells[row["seed"], row["n_train"], sums[row["layer_set"], row["added_layer"]]]
            assert row["condition_number"] == pytest.approx(after["condition_number_fixed_sigma"], rel=1e-6)
            checked += 1
    assert checked == 2 * len(sums)


def test_each_kernel_of_a_stage_is_decomposed_once(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch):
    decomposed: list[tuple[str, bytes]] = []

    def counted(name: str) -> None:
        make = getattr(stage_module, name)
        monkeypatch.setattr(stage_module, name, lambda K: (decomposed.append((name, K.tobytes())), make(K))[1])

    counted("EigenDecomposition")
    counted("reduce_symmetric")
    chosen = {"grid.layer_sets": [{"subsets": 3}], "grid.n_train": [20]}
    run_spec(adding(tmp_path, model, chosen))
    # Six sets that lack something, of which three are sums; three blocks; and the sum of everything.
    assert Counter(name for name, _ in decomposed) == {"EigenDecomposition": 6, "reduce_symmetric": 4}
    assert len(set(decomposed)) == 10


# --- bounds that do not hold


def test_a_broken_bound_fails_the_stage_and_the_run(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch):
    def without_its_largest(**ends: float) -> AddedBlockBounds:
        return added_block_bounds(**ends | {"block_max": ends["block_min"]})

    spec = adding(tmp_path, model, {"grid.layer_sets": [{"groups": [["0.query"], ["0.query", "1.query"]]}]})
    with monkeypatch.context() as patched:
        patched.setattr(stage_module, "added_block_bounds", without_its_largest)
        report = run_spec(spec).report
    assert {failure.stage.kind for failure in report.failures} == {"additions"}
    for failure in report.failures:
        assert failure.failure is FailureClass.CODE
        assert "BrokenBoundError" in failure.message
        assert "1.query added to 0.query: sigma_max is" in failure.message
        assert "that is an error in ntksweep" in failure.message
    answer = ntksweep("status", tmp_path / "results", "--json")
    assert answer.status == 1
    assert json.loads(answer.output)["cells_finished"] == json.loads(answer.output)["cells"]
    assert len(results_of(spec).additions) == 0
    mended = run_spec(spec)
    assert not mended.report.failures
    assert len(results_of(spec).additions) == 2


@pytest.mark.parametrize(
    ("column", "factor"),
    [
        ("sigma_max", 1.1), ("sigma_max", 0.5), ("sigma_min", 1.9), ("sigma_min", 0.5), ("condition_number", 1.1),
        ("sigma_max_first_order", 1.1), ("sigma_min_first_order", 0.9),
    ],
)  # fmt: skip
def test_every_bound_is_held_against_what_it_bounds(column: str, factor: float):
    K, S = np.diag([1.0, 5.0]), np.diag([0.5, 0.5])
    row = expected_row(K, S, 1e-4, (FLOAT, FLOAT))
    stage_module._check(row, "S added to K")
    row[column] *= factor
    with pytest.raises(BrokenBoundError, match=rf"S added to K: .*{column}"):
        stage_module._check(row, "S added to K")


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_rounding_breaks_no_bound(scale: float):
    draw = np.random.default_rng(0)
    # Where eigenvectors are shared and in order, bounds are reached.
    shared = np.diag([*np.linspace(0.01, 1, 29), scale])
    blocks = [scale * J @ J.T for J in (draw.standard_normal((30, rank)) for rank in (1, 2, 30, 30))]
    for K, S in ((shared, shared), tuple(blocks[:2]), tuple(blocks[2:])):
        for _ in range(20):
            row = expected_row(K, S, 1e-4, (FLOAT, FLOAT))
            noise = 30 * FLOAT * row["sigma_max"]
            for column in ("sigma_max", "sigma_min", "sigma_max_first_order", "sigma_min_first_order"):
                row[column] += noise * draw.uniform(-1, 1)
            smallest = max(row["sigma_min"], 0.0) + row["sigma"]
            row["condition_number"] = (row["sigma_max"] + row["sigma"]) / smallest
            stage_module._check(row, "S added to K")


# --- plan, status, changes


def test_additions_join_a_finished_sweep_and_leave_the_rest_alone(tmp_path: Path, model: Path):
    spec = adding(tmp_path, model, {"kernel.additions": None})
    first = run_spec(spec)
    with pytest.raises(ResultsError, match=r"no table `additions`; set kernel\.additions: true and run"):
        _ = results_of(spec).additions
    before = numbers(tmp_path / "results")
    adding(tmp_path, model)
    assert ntksweep("run", spec).status == 0
    again = run_spec(spec)
    assert again.was_finished
    kinds = [stage.kind for stage in again.plan.stages if stage not in first.plan.stages]
    assert set(kinds) == {"gram", "additions"}
    old, new = ({stage.stage_id for stage in each.plan.stages} for each in (first, again))
    assert old < new
    events = [json.loads(line) for path in (tmp_path / "results/journal").glob("*.jsonl") for line in path.open()]
    finished = [event["stage"] for event in events if event["event"] == "finished"]
    assert sorted(finished) == sorted(new)  # each once
    found = numbers(tmp_path / "results")
    assert len(found.pop("additions"))
    assert {name: table.equals(before[name]) for name, table in found.items()} == dict.fromkeys(before, True)
    assert again.plan.plan_id != first.plan.plan_id

    adding(tmp_path, model, {"kernel.additions": False})
    assert run_spec(spec).report.computed == 0


@pytest.mark.parametrize(
    ("n_train", "layer_sets"),
    [([3, 13], ["each_layer", "all_layers"]), ([8], [{"groups": [["0.query"], ["0.value", "1.query", "1.value"]]}])],
    ids=["of fewer examples", "of some groups"],
)
def test_blocks_that_are_there_are_not_made_in_another_form(n_train: list[int], layer_sets: list[Any]):
    few = survey_of(groups=groups_of(2, ("query", "value"), n_parameters=3, head=False))
    changes = {
        "head.in_kernel": False, "kernel.outputs": "margin", "grid.n_train": n_train, "grid.layer_sets": layer_sets,
    }  # fmt: skip
    plans = [plan_of(changes | {"kernel.additions": wanted}, survey=few) for wanted in (False, True)]
    without, with_additions = ([s for s in plan.stages if s.kind == "gram"] for plan in plans)
    assert {stage.stage_id for stage in without} < {stage.stage_id for stage in with_additions}
    tiles: dict[tuple[Any, ...], list[str]] = {}
    for stage in with_additions:
        place = (*stage.inputs["left"], *stage.inputs["right"])
        tiles.setdefault(place, []).extend(group for block in stage.parameters.blocks for group in block)
    assert all(len(groups) == len(set(groups)) for groups in tiles.values())


def test_a_sweep_is_finished_once_its_additions_are(tmp_path: Path, model: Path):
    spec = adding(tmp_path, model)
    plan = run_spec(spec).plan
    expected = numbers(tmp_path / "results")
    assert ntksweep("status", tmp_path / "results").status == 0
    store = ResultsFolder(read_spec(spec).folder).artifacts()
    store.record_path("additions", plan.filled_by(Additions)[0].stage.stage_id).unlink()
    (tmp_path / "results/tables/manifest.json").unlink()
    answer = ntksweep("status", tmp_path / "results", "--json")
    assert answer.status == 3
    status = json.loads(answer.output)
    assert {"kind": "additions", "planned": 2, "finished": 1, "running": 0, "failed": 0, "missing": 1} in status[
        "kinds"
    ]
    assert status["worker_seconds"] > 0
    assert "no worker is running" in ntksweep("status", tmp_path / "results").output
    assert run_spec(spec).report.computed == 1
    assert_same_tables(tmp_path / "results", expected)


def test_the_table_is_exported(with_head: Path, tmp_path: Path):
    n_rows, output = len(results_of(with_head).additions), tmp_path / "additions.csv"
    answer = ntksweep("export", with_head.parent / "results", "--table", "additions", "--output", output)
    assert answer.status == 0
    assert len(output.read_text().splitlines()) == 1 + n_rows


def test_what_cannot_be_bounded_is_refused():
    with pytest.raises(ValueError, match=r"additions .* set `additions: false`, or `kind: sign`"):
        spec_of({"kernel.kind": "asymmetric_sign", "kernel.additions": True})


def test_a_grid_of_one_layer_set_has_nothing_to_add():
    plan = plan_of({"grid.layer_sets": ["all_layers"], "kernel.additions": True})
    assert plan.filled_by(Additions) == ()
    assert plan.stages == plan_of({"grid.layer_sets": ["all_layers"]}).stages


def test_additions_are_part_of_what_a_sweep_costs(tmp_path: Path, model: Path):
    spec = adding(tmp_path, model)
    (line,) = [line for line in ntksweep("plan", spec).output.splitlines() if line.startswith("additions")]
    assert "-" not in line.split()
    plan = plan_of({"kernel.additions": True, "grid.n_train": [100]})
    (stage,) = [stage for stage in plan.stages if stage.kind == "additions"]
    assert plan.cost_of(stage).memory_bytes == 5 * 8 * 200**2
    too_large = ntksweep("plan", adding(tmp_path / "large", model, {"compute.memory_budget": "15kB"}))
    assert too_large.status == 2
