"""Errors of half precision: rows, scores and kernel of a sample, against the same model in single precision.

The two models are compared one after the other, since both may not fit into memory at once:

    half = sample_rows(partial(scorer.rows, outputs=outputs), batches)
    del scorer
    single = sample_rows(partial(single_precision_scorer.rows, outputs=outputs), batches)
    error = precision_error(half, single)

The second one loads the same checkpoint in float32, so that the error is all that half precision changes, rounding of
the weights included. Processes that share a model each sample the rows of their own batches.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ntk_dist.jacobian.batches import Batch

Rows = Callable[[Batch], tuple[Tensor, Mapping[str, Tensor]]]
"""Scores (B, R) and Jacobian rows (B, R, p_g) by group of a batch, as the `rows` of a scorer gives them."""


@dataclass(frozen=True, eq=False)
class RowSample:
    """Scores and rows of a few examples, in memory.

    Attributes:
        scores: (n, R), float64.
        rows: by group (n R, p_g), in the precision in which they came.
    """

    scores: Tensor
    rows: Mapping[str, Tensor]


@dataclass(frozen=True)
class PrecisionError:
    """Relative errors |found - expected| / |expected| in the Frobenius norm; 0 where both are zero.

    Attributes:
        n_examples: of the sample.
        scores: of the outputs.
        groups: of the rows of each group.
        kernel: of the kernel of the sample, J J^T summed over groups.
    """

    n_examples: int
    scores: float
    groups: Mapping[str, float]
    kernel: float


def sample_rows(rows: Rows, batches: Sequence[Batch], *, counted: int | None = None) -> RowSample:
    """Return scores and rows of all examples, batch by batch, on the CPU.

    Args:
        rows: gives those of a batch.
        batches: the examples, at least one batch.
        counted: how many batches, the first ones, are sampled; the others are run all the same, for processes that
            share a model run equally many. None samples all of them.
    """
    found = [rows(batch) for batch in batches]
    for number in range(len(batches) if counted is None else counted, len(batches)):
        # a batch of which no example is taken still gives the names of the groups
        scores, own = found[number]
        found[number] = scores[:0], {name: each[:0] for name, each in own.items()}
    return RowSample(
        torch.cat([scores for scores, _ in found]).cpu().double(),
        {name: torch.cat([own[name].flatten(0, 1).cpu() for _, own in found]) for name in found[0][1]},
    )


def precision_error(found: RowSample, expected: RowSample) -> PrecisionError:
    """Return the relative errors of the rows of a model in half precision, against those in single precision.

    Args:
        found: in half precision.
        expected: of the same examples and groups, in single precision.

    Raises:
        ValueError: other examples, outputs or groups.
    """
    shapes = [{name: rows.shape for name, rows in each.rows.items()} for each in (found, expected)]
    if found.scores.shape != expected.scores.shape or shapes[0] != shapes[1]:
        raise ValueError(f"samples of other examples, outputs or groups: {shapes[0]} and {shapes[1]}")
    return PrecisionError(
        n_examples=len(found.scores),
        scores=_relative(found.scores, expected.scores),
        groups={name: _relative(rows, expected.rows[name]) for name, rows in found.rows.items()},
        kernel=_relative(_kernel(found), _kernel(expected)),
    )


def _kernel(sample: RowSample) -> Tensor:
    n_rows = sample.scores.numel()
    kernel = torch.zeros(n_rows, n_rows, dtype=torch.float64)
    for rows in sample.rows.values():
        # group by group, so that only one group's rows are in float64 at a time
        doubled = rows.double()
        kernel += doubled @ doubled.T
    return kernel


def _relative(found: Tensor, expected: Tensor) -> float:
    size = torch.linalg.vector_norm(expected, dtype=torch.float64)
    difference = torch.linalg.vector_norm(found.double() - expected.double())
    return 0.0 if difference == 0 else float(difference / size)
