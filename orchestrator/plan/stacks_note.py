"""A note about cells that stay in the stacks in which they were trained before the grid changed."""

from collections.abc import Sequence

from orchestrator.plan.plan import Plan
from orchestrator.store.stage import Stage


def stacks_notes(plan: Plan, missing: Sequence[Stage]) -> list[str]:
    """Return what is kept of trained stacks, and which cells make new ones; none where nothing changed.

    Args:
        plan: the plan.
        missing: its stages that are to be computed.
    """
    begun = set(plan.sweep.stacked_before.begun)
    comparisons = [each for solve in plan.solves for each in solve.comparisons] if begun else []
    kept = new = gone = 0
    for each in comparisons:
        trained_by = {stage_id for role in ("trained", "linearized") for _, stage_id in each.stage.inputs[role]}
        if begun.isdisjoint(trained_by):
            new += len(each.in_grid)
        else:
            kept += len(each.in_grid)
            gone += len(each.lambdas) - len(each.in_grid)
    trains = any(stage.kind == "finetune" for stage in missing)
    if not kept or not (gone or (new and trains)):
        return []
    with_them = f", with {gone} that the grid no longer has, which no table shows" if gone else ""
    others = f"; {new} others make stacks of their own" if new else ""
    return [f"{kept} cells stay in the stacks in which their training was begun{with_them}{others}"]
