"""The stage `head`: a linear head fitted to the frozen model's features of the training examples."""

import numpy as np

from finetune.analysis.left_out import ridge_hat
from finetune.analysis.probe import ProbeKind, fit_head
from finetune.data.targets import logit_targets
from finetune.settings import TaskKind
from ntk_dist.jacobian.batches import length_buckets
from orchestrator.stages.context.tokenized import read_tokens
from orchestrator.stages.context.work import Product, Work
from orchestrator.stages.head import HeadParameters
from orchestrator.store.stage import Stage


def compute(stage: Stage[HeadParameters], work: Work) -> Product:
    """Fit the head; the artifact holds its `weight` (C, d) and `bias` (C,).

    For leave-one-out it also holds, for a ridge head, the results of `finetune.analysis.left_out.ridge_hat`,
    `hat_factor` (n, q) and `left_out_changes` (n, C), and for a logistic one the `features` (n, d) of its fit.
    """
    p = stage.parameters
    dataset = work.input(stage, "dataset")
    labels = np.array(dataset.array("train.labels"))
    tokens = read_tokens(dataset, "train", 0, len(labels))
    scorer = work.scorer(p.scorer, None, ())
    own: dict[int, np.ndarray] = {}
    batches = length_buckets(tokens.lengths, batch_tokens=work.batch_tokens(stage, p.scorer))
    for positions, counts in work.process_group.rounds(batches):
        rows = scorer.features(tokens.batch(positions)).numpy()
        if counts:
            own |= zip(positions.tolist(), rows, strict=True)
    found = {position: row for each in work.process_group.gathered(own) for position, row in each.items()}
    features = np.stack([found[position] for position in range(len(labels))])
    kind: TaskKind = "regression" if labels.dtype.kind == "f" else "classification"
    targets = logit_targets(labels, kind=kind, n_outputs=p.scorer.n_outputs, outputs=p.outputs)
    head: ProbeKind = "ridge" if p.scorer.head.kind == "ridge" else "logistic"
    l2_penalty = p.scorer.head.l2_penalty
    arrays: dict[str, np.ndarray] = dict(fit_head(head, features, labels, targets, l2_penalty=l2_penalty))
    if head == "ridge":
        arrays["hat_factor"], arrays["left_out_changes"] = ridge_hat(features.astype(np.float64), targets, l2_penalty)
    else:
        arrays["features"] = features
    return Product({}, work.write_arrays(stage, arrays))
