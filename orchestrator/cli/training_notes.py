"""What people should know of how a plan trains, beside its costs."""

from orchestrator.plan import Plan
from orchestrator.training_memory import by_rows

HEAD_OUTSIDE = "the head is trained but not in the kernel: the linearization lacks it"


def training_notes(plan: Plan) -> list[str]:
    """Return a sentence for each way in which training is not what one might think; none without training."""
    spec, notes = plan.sweep.spec, []
    if spec.head_trained and not spec.head.in_kernel:
        notes.append(HEAD_OUTSIDE)
    linearized = [s for s in plan.stages if s.kind == "finetune" and s.parameters["model"] == "linearized"]
    without_rows = sum(not by_rows(stage) for stage in linearized)
    if without_rows and spec.finetune and spec.finetune.linearization is None:
        notes.append(
            f"{without_rows} of {len(linearized)} linearizations are trained by products with the Jacobian, for their "
            "rows do not fit compute.memory_budget"
        )
    return notes
