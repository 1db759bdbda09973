"""The kind `capture`: the Jacobian rows of a shard of examples."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from orchestrator.stages.base.parameters import RowsParameters
from orchestrator.stages.base.scope import SeedScope
from orchestrator.stages.batching import BATCHING, trial
from orchestrator.stages.head import model_inputs
from orchestrator.store.stage import Stage, StageCost, StageKind
from orchestrator.sweep.passes import rows
from orchestrator.sweep.refinements import Groups

if TYPE_CHECKING:
    from orchestrator.sweep.variant import Variant


Split = Literal["train", "eval"]


@dataclass(frozen=True)
class CaptureParameters:
    """Parameters of a stage `capture`.

    Attributes:
        rows: the rows.
        split: split of its examples.
        start: first example.
        stop: example after the last one.
    """

    rows: RowsParameters
    split: Split
    start: int
    stop: int


def cost(stage: Stage[CaptureParameters], variant: "Variant") -> StageCost:
    """Return the cost of the rows of the shard's examples."""
    sizes, groups = variant.sizes, stage.parameters.rows.groups
    n = stage.parameters.stop - stage.parameters.start
    written = n * sizes.rows_per_example * (sizes.parameters_of(groups) + 1) * sizes.row_bytes
    on_gpu = variant.sweep.spec.compute.device == "cuda"
    return rows(variant, n, groups) + StageCost(
        written_bytes=written,
        moved_bytes=written if on_gpu else 0,
        memory_bytes=sizes.batch_bytes,
        device_bytes=sizes.batch_bytes if on_gpu else 0,
    )


def _label(stage: Stage[CaptureParameters]) -> str:
    p = stage.parameters
    return f"capture of {p.split} examples {p.start} to {p.stop - 1}, adapter seed {p.rows.scorer.adapter_seed}"


def plan(scope: SeedScope) -> None:
    """Add a stage for each shard of training and evaluation examples, unless rows stay in memory."""
    if not scope.variant.rows_place.resident:
        for groups in scope.variant.rows_used:
            for stage in (*captures(scope, "train", groups), *captures(scope, "eval", groups)):
                scope.add(stage)


def captures(scope: SeedScope, split: Split, groups: Groups) -> list[Stage[CaptureParameters]]:
    """Return the captures of a split, shard by shard, whether or not they leave artifacts.

    Args:
        scope: the seed.
        split: the split.
        groups: one of the variant's `row_sets`.
    """
    return scope.kept((CAPTURE.name, split, groups), lambda: _captures(scope, split, groups))


def _captures(scope: SeedScope, split: Split, groups: Groups) -> list[Stage[CaptureParameters]]:
    sizes = scope.variant.sizes
    ranges = sizes.train_shards if split == "train" else sizes.eval_shards
    found = []
    for start, stop in ranges:
        n_train = stop if split == "train" else scope.drawn_sets[0]  # all of them have the evaluation examples
        inputs = {**model_inputs(scope, n_train), BATCHING.name: (trial(scope, n_train, groups).ref,)}
        found.append(Stage(CAPTURE, CaptureParameters(scope.rows_of(groups), split, start, stop), inputs))
    return found


def of_groups(stage: Stage[CaptureParameters], groups: Collection[str]) -> Stage[CaptureParameters]:
    """Return the capture of some of the groups of another one: their rows are the same."""
    rows = stage.parameters.rows
    chosen = tuple(group for group in rows.groups if group in groups)
    if chosen == rows.groups:
        return stage
    return replace(stage, parameters=replace(stage.parameters, rows=replace(rows, groups=chosen)))


CAPTURE = StageKind(
    name="capture",
    parameters=CaptureParameters,
    version=3,
    meaning="computes the Jacobian rows of a shard of examples",
    module="orchestrator.stages.capture.compute",
    plan=plan,
    cost=cost,
    label=_label,
    runs_model=True,
    advice="lower compute.shard_examples, or raise the budget",
)
