"""The stage `batching`: a check that an example's numbers do not depend on its batch; captures wait for it."""

from dataclasses import replace
from functools import partial

import torch

from finetune.model.batching import TrialTexts, check_batching, one_score
from finetune.training.origins import joined
from orchestrator.stages.base.parameters import RowsParameters
from orchestrator.stages.batching import CROWD
from orchestrator.stages.context.tokenized import read_tokens
from orchestrator.stages.context.work import Product, Work
from orchestrator.store.stage import Stage

HALF = ("bfloat16", "float16")


def compute(stage: Stage[RowsParameters], work: Work) -> Product:
    """Compare the shortest of all texts by itself, beside others and before and after the longest; leaves no numbers.

    A model in half precision is tested in single precision, in which rounding hides less.

    Raises:
        BatchingError: its numbers depend on the batch.
    """
    p = stage.parameters
    in_half = p.scorer.dtype in HALF
    scorer = replace(p.scorer, dtype="float32") if in_half else p.scorer
    dataset = work.input(stage, "dataset")
    texts = joined(
        [read_tokens(dataset, split, 0, len(dataset.array(f"{split}.labels"))) for split in ("train", "eval")]
    )
    head = work.input(stage, "head") if "head" in stage.inputs else None
    loaded = work.scorer(scorer, head, p.groups)
    crowd = work.halved(min(CROWD, p.batch_size))
    chosen = TrialTexts.of(texts, batch_tokens=work.batch_tokens(stage, scorer), crowd=crowd)
    rows = partial(loaded.rows, outputs=one_score, row_dtype=getattr(torch, scorer.dtype))
    check_batching(loaded.model, rows, chosen, alone=scorer.batching == "alone")
    if in_half:
        work.forget_scorer()
    return Product({})
