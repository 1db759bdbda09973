"""What the training labels leave to be explained at the pretrained point, for layers that are added to layer sets."""

from collections.abc import Sequence

import numpy as np

from finetune.data.targets import code_targets
from ntk_dist.arrays import FloatArray
from orchestrator.stages.additions import AdditionsParameters
from orchestrator.stages.context.problem import first_columns, initial_outputs
from orchestrator.stages.context.work import Work
from orchestrator.store.artifacts import Artifact
from orchestrator.store.stage import Stage


def residual_of(stage: Stage[AdditionsParameters], work: Work, tiles: Sequence[Artifact]) -> FloatArray:
    """Return r = y - f_0 (M, k) of the training examples, f_0 as the tiles of the kernel have it."""
    p = stage.parameters
    labels = np.array(work.input(stage, "dataset").array("train.labels")[: p.n_train])
    targets = code_targets(labels, kind=p.task_kind, n_outputs=p.n_outputs, outputs=p.outputs)
    return targets - initial_outputs(first_columns(tiles), p.n_train, p.outputs)
