"""The stage `capture`: Jacobian rows of one shard of examples, every group at once, streamed to disk."""

from functools import partial

import numpy as np
import torch

from finetune.data.targets import kernel_outputs, rows_per_example
from ntk_dist.jacobian.batches import length_buckets
from ntk_dist.jacobian.row_sums import in_turn
from orchestrator.stages.capture import CaptureParameters
from orchestrator.stages.context.tokenized import read_tokens
from orchestrator.stages.context.work import Product, Work
from orchestrator.store.batched import BatchedLayout
from orchestrator.store.stage import Stage

SCORES = "scores"
"""The array of initial outputs f_0, (examples, rows per example), beside one array a group."""


def compute(stage: Stage[CaptureParameters], work: Work) -> Product:
    """Capture the rows of examples [start, stop) of a split.

    The artifact holds one array (rows, p_g) for each group, rows by example and then by output, and `scores`; the parts
    of all arrays that belong to one batch are contiguous in the file.
    """
    start, stop, p = stage.parameters.start, stage.parameters.stop, stage.parameters.rows
    head = work.input(stage, "head") if "head" in stage.inputs else None
    scorer = work.scorer(p.scorer, head, p.groups)
    tokens = read_tokens(work.input(stage, "dataset"), stage.parameters.split, start, stop)
    per_example = rows_per_example(p.scorer.n_outputs, p.outputs)
    batch_tokens, batch_size = work.batch_tokens(stage, p.scorer), work.halved(p.batch_size)
    batches = length_buckets(
        tokens.lengths, batch_tokens=batch_tokens, batch_size=batch_size, pass_tokens=scorer.pass_tokens
    )
    dtype = p.scorer.row_dtype
    widths = {group: sum(linear.n_parameters for linear in scorer.groups[group]) for group in p.groups}
    arrays = {SCORES: (1, per_example)} | {group: (per_example, width) for group, width in widths.items()}
    file = work.new_arrays(stage, {}, BatchedLayout(dtype, batches, arrays))
    outputs, row_dtype = partial(kernel_outputs, outputs=p.outputs), getattr(torch, dtype)
    rounds = list(work.process_group.rounds(list(enumerate(batches))))
    begun = (scorer.begin_rows(tokens.batch(positions), outputs, row_dtype=row_dtype) for (_, positions), _ in rounds)
    for ((number, _), counts), (scores, rows) in zip(rounds, in_turn(begun), strict=True):
        if counts:
            by_row = {group: values.flatten(0, 1).numpy() for group, values in rows.items()}
            file.write_batch(number, {SCORES: scores.numpy()} | by_row)
    facts = {
        "start": start,
        "stop": stop,
        "rows": (stop - start) * per_example,
        "zero_parts": {name: list(parts) for name, parts in scorer.zero_parts.items() if name in p.groups},
        "drawn_parameters": list(scorer.drawn),
        "mean_tokens": float(np.mean(tokens.lengths)),
    }
    return Product(facts, file)
