"""The stage `head_refits`: a logistic head fitted again without each of its training examples, for leave-one-out."""

import numpy as np

from finetune.analysis.logistic_refits import logistic_refits
from finetune.errors import ProbeError
from orchestrator.stages.context.work import Product, Work
from orchestrator.stages.head_refits import HeadRefitsParameters
from orchestrator.store.stage import Stage


def compute(stage: Stage[HeadRefitsParameters], work: Work) -> Product:
    """Fit the head again; the artifact holds `features` and `directions` of `finetune.analysis.left_out.LeftOut`.

    They are (n, q) and (n, C, q). If some example cannot be left out, it holds no arrays, and its facts give the
    reason under `impossible`.
    """
    head = work.input(stage, "head")
    labels = np.array(work.input(stage, "dataset").array("train.labels"))
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() == 1:
        single = classes[counts.argmin()]
        return _impossible(f"class {single} has one training example, without which the probe cannot be fitted")
    features, weight, bias = (np.array(head.array(name), np.float64) for name in ("features", "weight", "bias"))
    try:
        found = logistic_refits(features, labels, weight, bias, l2_penalty=stage.parameters.l2_penalty)
    except ProbeError as error:
        return _impossible(str(error))
    arrays = {"features": found.features, "directions": found.directions}
    return Product({}, work.write_arrays(stage, arrays))


def _impossible(why: str) -> Product:
    return Product({"impossible": why})
