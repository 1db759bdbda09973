"""A note about the precision of kernel blocks on a GPU, which is shown beside the costs of a plan."""

from collections.abc import Sequence

from orchestrator.plan.estimate import Cost
from orchestrator.plan.plan import Plan
from orchestrator.sweep.cards import likely_card
from orchestrator.sweep.double_precision import product_note
from orchestrator.sweep.folder import ResultsFolder


def product_notes(plan: Plan, found: Sequence[Cost], folder: ResultsFolder) -> list[str]:
    """Return what products in float64 cost where blocks are made by a GPU that is slow at them; no note elsewhere.

    The GPU is the one of this machine, or that of the results folder where there is none here.

    Args:
        plan: the plan.
        found: the costs of its kinds of stages.
        folder: its results folder.
    """
    compute = plan.sweep.spec.compute
    flops = sum(cost.flops for cost in found if cost.kind == "gram")
    if compute.device == "cpu" or compute.gram_dtype != "float64" or not flops:
        return []
    import torch

    device = torch.device("cuda") if torch.cuda.is_available() else None
    card = likely_card(folder)
    note = None if card is None else product_note(card, flops, device)
    return [] if note is None else [note]
