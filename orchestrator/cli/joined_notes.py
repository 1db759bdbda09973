"""A note about layer sets that cut kernel blocks which a results folder stored before them."""

from collections.abc import Sequence

from orchestrator.plan.plan import Plan
from orchestrator.stages.gram import GRAM
from orchestrator.store.stage import Stage
from orchestrator.sweep.refinements import refinements_of
from orchestrator.sweep.variant import Variant

MOST_NAMED = 8
"""Layer sets that a note names."""


def joined_notes(plan: Plan, missing: Sequence[Stage]) -> list[str]:
    """Return for each variant what is made once more for layer sets that joined, and why; none where nothing is.

    Args:
        plan: the plan.
        missing: its stages that are to be computed.
    """
    return [note for variant in plan.variants if (note := _note(plan, variant, missing))]


def _note(plan: Plan, variant: Variant, missing: Sequence[Stage]) -> str:
    found = variant.refinements
    tiles = [
        stage.parameters.blocks
        for stage in missing
        if stage.of is GRAM and plan.of(stage) is variant and stage.parameters.blocks in found[1:]
    ]
    if not tiles:
        return ""
    groups = {group for blocks in tiles for block in blocks for group in block}
    lacking = {found.index(blocks) for blocks in tiles}
    sets = [each.name for each in variant.layer_sets if not lacking.isdisjoint(refinements_of(each.groups, found))]
    named = ", ".join(sets[:MOST_NAMED]) + (f" and {len(sets) - MOST_NAMED} more" if len(sets) > MOST_NAMED else "")
    of = f"{variant.choice}: " if str(variant.choice) else ""
    return (
        f"{of}{len(tiles)} tiles of {len(groups)} of {len(variant.sizes.dual_groups)} groups are made for layer sets "
        f"that cut stored blocks: {named}; rows of these groups are "
        f"{'captured again' if variant.rows_place.resident else 'read from the disk again'}, and everything else stays"
    )
