"""Changes of the initial outputs when one training example is left out, where a head was fitted to its label."""

import numpy as np

from finetune.analysis.left_out import LeftOut, ridge_left_out
from finetune.data.targets import changes_of_outputs
from ntk_dist.kernel.features import OutputMode
from ntk_dist.solvers.fitted_start import FittedStart
from orchestrator.stages.context.work import Work
from orchestrator.stages.solve import SolveParameters
from orchestrator.store.stage import Stage


def load_start(stage: Stage[SolveParameters], work: Work, mode: OutputMode) -> tuple[FittedStart | None, str]:
    """Return the quantities of a fitted head that leave-one-out and GCV need, or None and the reason.

    The reason is empty where no head was fitted to labels, or where nothing asks for it.
    """
    if "left_out" not in stage.inputs:
        return None, ""
    artifact = work.input(stage, "left_out")
    if "impossible" in artifact.facts:
        return None, artifact.facts["impossible"]
    linear = stage.inputs["left_out"][0][0] == "head"
    if linear:
        found = ridge_left_out(*(np.array(artifact.array(name)) for name in ("hat_factor", "left_out_changes")))
    else:
        directions = np.array(artifact.array("directions"))
        n, C, _ = directions.shape
        found = LeftOut(np.array(artifact.array("features")), directions, np.broadcast_to(np.eye(C), (n, C, C)))
    return FittedStart(found.features, found.directions, changes_of_outputs(found.changes, mode), linear), ""
