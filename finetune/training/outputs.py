"""The outputs of a trainable model on all examples of a split."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from finetune.training.trainable import Split, Trainable
from ntk_dist.jacobian.batches import length_buckets


@torch.no_grad()
def all_outputs(model: Trainable, split: Split, cells: Sequence[int], *, at_once: int) -> NDArray[np.float64]:
    """Return the outputs (S, n, R) of S of a model's cells for the n examples of a split.

    Args:
        model: the model.
        split: which examples.
        cells: the cells.
        at_once: most examples that go through the model at once, in batches of examples that cost alike.
    """
    lengths = model.lengths(split)
    buckets = [length_buckets(each, batch_tokens=at_once * int(max(each)), batch_size=at_once) for each in lengths]
    # Origins have equally many examples, so that the batches of all of them have the same sizes.
    found = [
        (positions, model.outputs(split, positions, list(cells)).double().cpu().numpy())
        for positions in zip(*buckets, strict=True)
    ]
    outputs = np.empty((len(cells), len(lengths[0]), found[0][1].shape[2]))
    for positions, values in found:
        for row, cell in enumerate(cells):
            outputs[row, positions[model.origins[cell]]] = values[row]
    return outputs
