"""The stage `capture`: Jacobian rows of one shard of examples, every group at once, streamed to disk."""

from functools import partial

import numpy as np
import torch

from finetune.targets import kernel_outputs, rows_per_example
from ntk_dist.batches import length_buckets
from ntk_dist.row_sums import in_turn
from orchestrator.stage import Stage
from orchestrator.stages.tokenized import read_tokens
from orchestrator.stages.work import Product, Work

SCORES = "scores"
"""The array of initial outputs f_0, (examples, rows per example), beside one array a group."""


def compute(stage: Stage, work: Work) -> Product:
    """Capture the rows of examples [start, stop) of a split.

    The artifact holds one array (rows, p_g) a group, rows by example and then by output, and `scores`.
    """
    p = stage.parameters
    start, stop = p["start"], p["stop"]
    head = work.input(stage, "head") if "head" in stage.inputs else None
    scorer = work.scorer(p, head, p["groups"])
    tokens = read_tokens(work.input(stage, "dataset"), p["split"], start, stop)
    per_example = rows_per_example(p["n_outputs"], p["outputs"])
    n_rows = (stop - start) * per_example

    dtype = p.get("row_dtype", p["dtype"])
    layout = {
        group: (dtype, (n_rows, sum(linear.n_parameters for linear in scorer.groups[group]))) for group in p["groups"]
    }
    file = work.new_arrays(stage, layout | {SCORES: (dtype, (stop - start, per_example))})
    batch_tokens, batch_examples = work.batch_tokens(stage, p), work.halved(p["batch_examples"])
    batches = length_buckets(tokens.lengths, batch_tokens=batch_tokens, batch_examples=batch_examples)
    outputs, row_dtype = partial(kernel_outputs, outputs=p["outputs"]), getattr(torch, dtype)
    rounds = list(work.group.rounds(batches))
    begun = (scorer.begin_rows(tokens.batch(positions), outputs, row_dtype=row_dtype) for positions, _ in rounds)
    for (positions, counts), (scores, rows) in zip(rounds, in_turn(begun), strict=True):
        for place, position in enumerate(positions if counts else ()):
            file.write(SCORES, scores[place : place + 1].numpy(), int(position))
            for group, values in rows.items():
                file.write(group, values[place].numpy(), int(position) * per_example)
    facts = {
        "start": start,
        "stop": stop,
        "rows": n_rows,
        "zero_parts": {name: list(parts) for name, parts in scorer.zero_parts.items() if name in p["groups"]},
        "drawn_parameters": list(scorer.drawn),
        "mean_tokens": float(np.mean(tokens.lengths)),
    }
    return Product(facts, file)
