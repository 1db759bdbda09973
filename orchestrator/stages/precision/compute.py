"""The stage `precision`: errors from half precision of the model, measured on a few training examples."""

from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch

from finetune.analysis.precision_error import RowSample, precision_error, sample_rows
from finetune.data.targets import kernel_outputs
from finetune.settings import ModelDType
from ntk_dist.jacobian.batches import length_buckets
from orchestrator.stages.context.tokenized import read_tokens
from orchestrator.stages.context.work import Product, Work
from orchestrator.stages.precision import PrecisionParameters
from orchestrator.store.stage import Stage


def compute(stage: Stage[PrecisionParameters], work: Work) -> Product:
    """Compute rows in the model's precision and in float32; the facts have the relative errors of `PrecisionError`.

    In a group every process compares its own batches, each of them once, and the largest error is kept.
    """
    half = _sample(stage, work, stage.parameters.rows.scorer.dtype)
    single = _sample(stage, work, "float32")
    work.forget_scorer()
    return Product(_worst(work.process_group.gathered(asdict(precision_error(half, single)))))


def _sample(stage: Stage[PrecisionParameters], work: Work, dtype: ModelDType) -> RowSample:
    p = stage.parameters.rows
    model = replace(p.scorer, dtype=dtype)
    head = work.input(stage, "head") if "head" in stage.inputs else None
    scorer = work.scorer(model, head, p.groups)
    tokens = read_tokens(work.input(stage, "dataset"), "train", 0, stage.parameters.examples)
    row_dtype = getattr(torch, model.row_dtype)
    rows = partial(scorer.rows, outputs=partial(kernel_outputs, outputs=p.outputs), row_dtype=row_dtype)
    buckets = length_buckets(
        tokens.lengths, batch_tokens=work.batch_tokens(stage, model), batch_size=work.halved(p.batch_size)
    )
    rounds = list(work.process_group.rounds(buckets))
    own = sum(counts for _, counts in rounds)  # batches that are repeated for other processes come last
    return sample_rows(rows, [tokens.batch(positions) for positions, _ in rounds], counted=own)


def _worst(errors: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the largest of the errors that the processes of a group found."""
    first = errors[0]
    return {
        "n_examples": sum(each["n_examples"] for each in errors),
        "scores": max(each["scores"] for each in errors),
        "kernel": max(each["kernel"] for each in errors),
        "groups": {name: max(each["groups"][name] for each in errors) for name in first["groups"]},
    }
