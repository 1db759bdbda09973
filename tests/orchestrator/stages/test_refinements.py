"""Layer sets that join a sweep whose blocks are atoms: what was made stays, and only what they lack is made."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.plan.plan import Plan, make_plan
from orchestrator.spec import read_spec
from orchestrator.stages.capture import compute as capture
from orchestrator.store.journal import read_journals
from orchestrator.sweep.blocks_asked import BlocksAsked
from tests.faults.tables import checksums, numbers
from tests.orchestrator.sweeps import (
    groups_of,
    make_sweep,
    ntksweep,
    run_spec,
    survey_of,
    sweep_of,
    write_spec,
)

ATOMS: dict[str, Any] = {"kernel.blocks": "atoms", "compute.rows": "resident"}

MANY = survey_of(groups=groups_of(4, ("q", "v"), n_parameters=10_000))
"""Facts of a model with more parameters than kernels have rows."""

ALL, EVEN, FIRST, LOW = "all_layers", [0, 2], [0], [0, 1]


def sets(*layers: list[int]) -> dict[str, Any]:
    return {"grid.layer_sets": [ALL, {"layers": list(layers)}] if layers else [ALL]}


def planned(changes: dict[str, Any], *before: dict[str, Any]) -> Plan:
    """Return the plan of a sweep whose folder was run with other changes before."""
    sweep = sweep_of(ATOMS | changes)
    asked = tuple(BlocksAsked.by(sweep_of(ATOMS | each).spec) for each in before)
    return make_plan(replace(sweep, blocks_asked=asked), [MANY])


def names(plan: Plan) -> list[set[str]]:
    return [{"".join(block) for block in each.blocks} for each in plan.variants[0].refinements]


COARSE = {"0.q0.v2.q2.v", "1.q1.v3.q3.v", "head"}


def test_a_set_that_cuts_an_atom_adds_blocks_of_what_it_lacks():
    first, second = planned(sets(EVEN)), planned(sets(EVEN, FIRST), sets(EVEN))
    assert names(first) == [COARSE]
    assert names(second) == [COARSE, {"0.q0.v"}]
    third = planned(sets(EVEN, FIRST, LOW), sets(EVEN), sets(EVEN, FIRST))
    assert names(third) == [COARSE, {"0.q0.v"}, {"1.q1.v"}]
    identities = [{stage.stage_id for stage in plan.stages} for plan in (first, second, third)]
    assert identities[0] < identities[1] < identities[2]
    # 3 training and 2 evaluation shards
    assert [Counter(stage.kind for stage in plan.stages)["gram"] for plan in (first, second, third)] == [12, 24, 36]
    read = {solve.layer_sets[0].name: len(solve.stage.inputs["tiles"]) for solve in third.solves}
    assert read == {"layers:0-3": 6, "layers:0,2": 6, "layers:0": 12, "layers:0-1": 18}


def test_what_was_asked_for_once_is_planned_alike_again():
    steps = (sets(EVEN), sets(EVEN, FIRST), sets(EVEN, FIRST, LOW))
    assert planned(steps[2], *steps[:2]).plan_id == planned(steps[2], *steps).plan_id
    assert planned(steps[0], *steps).plan_id == planned(steps[0]).plan_id


def test_from_scratch_all_sets_have_the_coarsest_blocks():
    assert names(planned(sets(EVEN, FIRST, LOW))) == [{"0.q0.v", "1.q1.v", "2.q2.v", "3.q3.v", "head"}]


def test_a_set_that_is_a_sum_of_blocks_adds_none():
    joined = planned(sets(EVEN, [1, 3]), sets(EVEN))
    assert names(joined) == [COARSE]


def test_a_set_without_a_kernel_adds_none():
    """A group has fewer parameters than the kernel has rows, and is solved from those of the group alone."""
    rows = {"grid.n_train": [10_000], "compute.shard_examples": 2_500, "compute.rows": "stored"}
    few: dict[str, Any] = {"grid.layer_sets": [ALL, {"groups": [["0.q"]]}]}
    (blocks,) = names(planned(few | rows, sets() | rows))
    assert len(blocks) == 2


def test_additions_that_join_have_every_layer():
    joined = planned(sets(EVEN) | {"kernel.additions": True}, sets(EVEN))
    assert names(joined) == [COARSE, {"0.q0.v", "1.q1.v", "2.q2.v", "3.q3.v"}]


ONLY_LOW: dict[str, Any] = {"grid.layer_sets": [{"layers": [LOW]}]}


def test_a_set_with_groups_that_no_set_had_adds_blocks_of_these_alone():
    assert names(planned(sets(), ONLY_LOW)) == [{"0.q0.v1.q1.v", "head"}, {"2.q2.v3.q3.v"}]
    groups = {"kernel.blocks": "groups"}
    first, second = planned(ONLY_LOW | groups), planned(sets() | groups, ONLY_LOW | groups)
    assert names(first) == [{"0.q", "0.v", "1.q", "1.v", "head"}]
    assert names(second) == [*names(first), {"2.q", "2.v", "3.q", "3.v"}]
    there, planned_now = ({stage.stage_id for stage in plan.stages} for plan in (first, second))
    assert not {stage.stage_id for stage in first.stages if stage.kind == "gram"} - planned_now
    kept = planned(ONLY_LOW | groups, ONLY_LOW | groups, sets() | groups)
    assert {stage.stage_id for stage in kept.stages} == there, "a set that leaves takes nothing with it"


TRAINED: dict[str, Any] = {"finetune": {"learning_rate": 1e-3, "epochs": 1}}


@pytest.mark.parametrize(
    ("changes", "kind"), [({"model.dtype": "bfloat16"}, "precision"), (TRAINED, "finetune")], ids=["half", "trained"]
)
def test_what_cells_of_a_set_are_made_from_stays_when_further_groups_join(changes: dict[str, Any], kind: str):
    """Rows, trials of batches, errors of half precision and trainings as well as kernels."""
    changes = changes | {"compute.rows": "stored", "kernel.blocks": "groups"}
    first = planned(ONLY_LOW | changes)
    second = planned({"grid.layer_sets": [{"layers": [LOW]}, ALL]} | changes, ONLY_LOW | changes)
    assert {stage.stage_id for stage in first.stages} < {stage.stage_id for stage in second.stages}
    assert {"capture", "batching", "solve", kind} <= {stage.kind for stage in first.stages}


def test_blocks_of_another_kind_or_in_other_shards_are_made_anew():
    assert planned(sets(), sets() | {"kernel.blocks": "groups"}).plan_id == planned(sets()).plan_id
    for other in ({"compute.batch_tokens": "auto"}, {"compute.shard_examples": None, "compute.memory_budget": "16MB"}):
        assert planned(sets() | other, ONLY_LOW | other).plan_id == planned(sets() | other).plan_id


def test_identities_do_not_depend_on_where_rows_are():
    plans = [planned(sets(EVEN, FIRST) | {"compute.rows": rows}, sets(EVEN)) for rows in ("resident", "stored")]
    resident, stored = ({stage.stage_id for stage in plan.stages if stage.kind != "capture"} for plan in plans)
    assert resident == stored


SMALL: dict[str, Any] = {"kernel.blocks": "atoms", "adapter.rank": 4}
JOINED: dict[str, Any] = {"grid.layer_sets": ["all_layers", "each_layer", {"groups": [["0.query"]]}]}
INNER = ("0.query", "0.value", "1.query", "1.value")
COLUMNS = ["layer_set", "lambda_given", "sigma_max", "trace", "train_loss", "eval_loss", "parameter_distance"]


def finished(results: Path) -> Counter[str]:
    return Counter(event["stage"] for event in read_journals(results / "journal") if event["event"] == "finished")


def table(results: Path, name: str, columns: list[str], keys: int) -> Any:
    found = numbers(results)[name].to_pandas()[columns]
    return found.sort_values(columns[:keys]).reset_index(drop=True)


def assert_close(results: tuple[Path, Path], name: str, columns: list[str], keys: int) -> None:
    found, expected = (table(each, name, columns, keys) for each in results)
    assert found[columns[:keys]].equals(expected[columns[:keys]])
    np.testing.assert_allclose(found[columns[keys:]], expected[columns[keys:]], rtol=1e-10)


@pytest.mark.parametrize("rows", ["resident", "stored"])
def test_sets_that_join_reuse_what_is_there(
    rows: str, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    own = {"kernel.eigenvectors": True, "kernel.contributions": True}
    if rows == "stored":
        own = {"kernel.decomposition": "iterative"}
    changes = SMALL | own | {"compute.rows": rows}
    spec = make_sweep(tmp_path / "grown", changes | {"grid.layer_sets": ["all_layers"]}, model=tiny_model)
    results = read_spec(spec).folder
    run_spec(spec)
    before = checksums(results)
    if rows == "resident":
        answer = ntksweep("select", spec, "--greedy", "1")
        assert "layer 0 shares a block with others" in answer.errors

    write_spec(spec.parent, changes | JOINED | {"model.path": str(tiny_model)})
    said = " ".join(ntksweep("plan", spec).output.split())
    again = "captured again" if rows == "resident" else "read from the disk again"
    assert f"12 tiles of 4 of 5 groups are made for layer sets that joined: layers:0, layers:1, " \
           f"groups:0.query; rows of these groups are {again}, and everything else stays" in said  # fmt: skip
    captured: Counter[tuple[str, ...]] = Counter()
    resident_rows = capture.resident_rows

    def killed_once(stage: Any, work: Any) -> Any:
        captured[stage.parameters.rows.groups] += 1
        if captured.total() == 3:
            raise KeyboardInterrupt
        return resident_rows(stage, work)

    monkeypatch.setattr(capture, "resident_rows", killed_once)
    if rows == "resident":
        with pytest.raises(KeyboardInterrupt):
            run_spec(spec)
        assert 0 < len(checksums(results)) - len(before) < 12
    assert not run_spec(spec).report.failures
    assert run_spec(spec).was_finished

    after = checksums(results)
    assert {name: after[name] for name in before} == before
    assert Counter(name.partition("/")[0] for name in after.keys() - before.keys()) == {"gram": 12, "solve": 3}
    assert set(finished(results).values()) == {1}
    # 3 training and 2 evaluation shards; the two that the interrupt took, and the third of them, once more
    assert captured == ({INNER: 5 + 3} if rows == "resident" else {})

    fresh = make_sweep(tmp_path / "fresh", changes | JOINED, model=tiny_model)
    run_spec(fresh)
    both = results, read_spec(fresh).folder
    if rows == "stored":
        assert_close(both, "cells", COLUMNS[:6], 2)
        return
    assert_close(both, "cells", [*COLUMNS, "leave_one_out_loss"], 2)
    chosen = [ntksweep("select", each, "--greedy", "2", "--json").output for each in (spec, fresh)]
    assert '"greedy"' in chosen[0]
    assert len(chosen[0]) == len(chosen[1])
    shares = numbers(both[0])["contributions"].to_pandas()
    np.testing.assert_allclose(shares.groupby(["cell_id"])["contribution"].sum(), 1.0, rtol=1e-10)
    blocks = Counter("+".join(groups) for groups in shares[shares["lambda_given"] == 1.0]["groups"])
    assert blocks == {
        "+".join(INNER): 1, "0.query": 2, "0.value": 1, "1.query+1.value": 1, "head": 4,
    }  # fmt: skip


def test_additions_that_join_reuse_what_is_there(tmp_path: Path, tiny_model: Path):
    changes = SMALL | {"compute.rows": "resident", "grid.layer_sets": ["all_layers", {"groups": [["0.query"]]}]}
    spec = make_sweep(tmp_path / "grown", changes, model=tiny_model)
    run_spec(spec)
    results = read_spec(spec).folder
    before = checksums(results)
    more = changes | {"kernel.additions": True}
    write_spec(spec.parent, more | {"model.path": str(tiny_model)})
    assert not run_spec(spec).report.failures
    new = Counter(name.partition("/")[0] for name in checksums(results).keys() - before.keys())
    assert new == {"gram": 6, "additions": 1}  # nothing reads those of evaluation examples
    fresh = make_sweep(tmp_path / "fresh", more, model=tiny_model)
    run_spec(fresh)
    columns = ["layer_set", "added_layer", "sigma_max", "kernel_sigma_max", "block_sigma_max"]
    assert_close((results, read_spec(fresh).folder), "additions", columns, 2)


@pytest.mark.parametrize("changes", [{"compute.rows": "resident"}, TRAINED], ids=["resident", "trained"])
def test_sets_with_further_groups_join_and_nothing_is_made_twice(
    changes: dict[str, Any], tmp_path: Path, tiny_model: Path
):
    changes = {"adapter.rank": 4} | changes
    spec = make_sweep(tmp_path / "grown", changes | {"grid.layer_sets": [{"layers": [[1]]}]}, model=tiny_model)
    results = read_spec(spec).folder
    run_spec(spec)
    before = checksums(results)
    joined = changes | {"grid.layer_sets": ["all_layers", "each_layer"]}
    write_spec(spec.parent, joined | {"model.path": str(tiny_model)})
    said = " ".join(ntksweep("plan", spec).output.split())
    assert "of 2 of 5 groups are made for layer sets that joined: layers:0-1, layers:0; rows of these groups are " \
           "captured, and everything else stays" in said  # fmt: skip
    assert not run_spec(spec).report.failures
    assert run_spec(spec).was_finished
    after = checksums(results)
    assert {name: after[name] for name in before} == before
    assert set(finished(results).values()) == {1}

    fresh = make_sweep(tmp_path / "fresh", joined, model=tiny_model)
    run_spec(fresh)
    columns = [*COLUMNS, "leave_one_out_loss", *(["finetune_eval_loss"] if "finetune" in changes else [])]
    assert_close((results, read_spec(fresh).folder), "cells", columns, 2)
