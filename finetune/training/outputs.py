"""The outputs of a trainable model on all examples of a split."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.training.trainable import Split, Trainable
from ntk_dist.batches import length_buckets


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
    found: list[tuple[NDArray[np.int64], Tensor]] = [
        (positions, model.outputs(split, positions, list(cells)))
        for positions in length_buckets(lengths, batch_tokens=at_once * int(max(lengths)), batch_examples=at_once)
    ]
    outputs = np.empty((len(cells), len(lengths), found[0][1].shape[2]))
    for positions, values in found:
        outputs[:, positions] = values.double().numpy()
    return outputs
