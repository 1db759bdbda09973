"""The stage `capture`: Jacobian rows of one shard of examples, every group at once, streamed to disk or kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.data.targets import kernel_outputs, rows_per_example
from ntk_dist.device.transfers import sent
from ntk_dist.jacobian.batches import length_buckets
from ntk_dist.jacobian.row_sums import RowsToCome, in_turn
from orchestrator.stages.capture import CaptureParameters
from orchestrator.stages.context.blocks import SCORES
from orchestrator.stages.context.tokenized import read_tokens
from orchestrator.stages.context.work import Product, Work
from orchestrator.store.batched import Array, BatchedLayout
from orchestrator.store.stage import Stage


def compute(stage: Stage[CaptureParameters], work: Work) -> Product:
    """Capture the rows of examples [start, stop) of a split.

    The artifact holds one array (rows, p_g) for each group, rows by example and then by output, and `scores`; the parts
    of all arrays that belong to one batch are contiguous in the file.
    """
    shard = _Shard(stage, work)
    arrays = {SCORES: (1, shard.per_example)} | {name: (shard.per_example, width) for name, width in shard.widths}
    file = work.new_arrays(stage, {}, BatchedLayout(shard.dtype, shard.batches, arrays))
    rounds = list(work.process_group.rounds(list(enumerate(shard.batches))))
    begun = (shard.begin(positions) for (_, positions), _ in rounds)
    for ((number, _), counts), (scores, rows) in zip(rounds, in_turn(begun), strict=True):
        if counts:
            by_row = {group: values.flatten(0, 1).numpy() for group, values in rows.items()}
            file.write_batch(number, {SCORES: scores.numpy()} | by_row)
    return Product(shard.facts(), file)


@dataclass(frozen=True, eq=False)
class ResidentRows:
    """The rows of a shard, where they were computed: each process of a group keeps those of its own examples.

    Attributes:
        facts: as in the artifact of the stage.
        scores: initial outputs f_0 of all examples, (examples, rows per example).
        rows: Jacobian rows (rows, p_g) of this process's examples by group, rows by example and then by output: arrays,
            or tensors on a GPU.
        owned: by process, the positions of the examples whose rows it has, in ascending order.
    """

    facts: Mapping[str, Any]
    scores: Array
    rows: Mapping[str, Array | Tensor]
    owned: Sequence[NDArray[np.int64]]


def resident_rows(stage: Stage[CaptureParameters], work: Work) -> ResidentRows:
    """Return the rows that the stage would write to disk, the same bits, without writing any."""
    shard, group = _Shard(stage, work), work.process_group
    owned = shard.owned(group.size)
    own, device = owned[group.rank], shard.device
    n_rows, dtype = len(own) * shard.per_example, getattr(torch, shard.dtype)
    rows = {name: torch.empty((n_rows, width), dtype=dtype, device=device) for name, width in shard.widths}
    scores = torch.empty((len(own), shard.per_example), dtype=dtype, device=device)
    for positions, counts in group.rounds(shard.batches):
        found, by_group = shard.rows_here(positions)
        if not counts:
            continue
        examples = sent(torch.from_numpy(np.searchsorted(own, positions)), device)
        scores.index_copy_(0, examples, found)
        for name, values in by_group.items():
            rows[name].view(len(own), shard.per_example, -1).index_copy_(0, examples, values)
    gathered = group.gathered((stage.stage_id, scores.cpu().numpy()))
    # passes of different shards would meet without an error, and their scores would change places
    assert len({computed for computed, _ in gathered}) == 1, "the processes of a group compute different shards"
    whole = np.concatenate([own_scores for _, own_scores in gathered])[np.argsort(np.concatenate(owned))]
    on_host = device.type == "cpu"
    by_name = {name: each.numpy() if on_host else each for name, each in rows.items()}
    return ResidentRows(shard.facts(), whole, by_name, owned)


class _Shard:
    """The examples of a capture, in batches, and the model that they go through."""

    def __init__(self, stage: Stage[CaptureParameters], work: Work) -> None:
        self._parameters, p = stage.parameters, stage.parameters.rows
        head = work.input(stage, "head") if "head" in stage.inputs else None
        self._groups = p.groups
        self._scorer = work.scorer(p.scorer, head, p.groups)
        self._tokens = read_tokens(
            work.input(stage, "dataset"), stage.parameters.split, stage.parameters.start, stage.parameters.stop
        )
        batch_tokens, batch_size = work.batch_tokens(stage, p.scorer), work.halved(p.batch_size)
        self._outputs = partial(kernel_outputs, outputs=p.outputs)
        self.batches = length_buckets(
            self._tokens.lengths,
            batch_tokens=batch_tokens,
            batch_size=batch_size,
            pass_tokens=self._scorer.pass_tokens,
        )
        self.per_example = rows_per_example(p.scorer.n_outputs, p.outputs)
        self.dtype = p.scorer.row_dtype
        self.device = self._scorer.device

    @property
    def widths(self) -> list[tuple[str, int]]:
        """Parameters of each group."""
        return [(name, sum(linear.n_parameters for linear in self._scorer.groups[name])) for name in self._groups]

    def owned(self, processes: int) -> list[NDArray[np.int64]]:
        """Return the positions of the examples of each process of a group, in ascending order."""
        none = np.empty(0, dtype=np.int64)
        return [np.sort(np.concatenate([none, *self.batches[rank::processes]])) for rank in range(processes)]

    def begin(self, positions: Sequence[int] | NDArray[np.int64]) -> RowsToCome:
        """Compute the rows of some examples, which go to the host."""
        return self._scorer.begin_rows(self._tokens.batch(positions), self._outputs, row_dtype=self._row_dtype)

    def rows_here(self, positions: Sequence[int] | NDArray[np.int64]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return scores (B, R) and rows (B, R, p_g) by group of some examples, where the model is."""
        return self._scorer.rows_here(self._tokens.batch(positions), self._outputs, row_dtype=self._row_dtype)

    @property
    def _row_dtype(self) -> torch.dtype:
        found: torch.dtype = getattr(torch, self.dtype)
        return found

    def facts(self) -> dict[str, Any]:
        """Return the facts of the artifact."""
        start, stop = self._parameters.start, self._parameters.stop
        zero_parts = {name: list(parts) for name, parts in self._scorer.zero_parts.items() if name in self._groups}
        return {
            "start": start,
            "stop": stop,
            "rows": (stop - start) * self.per_example,
            "zero_parts": zero_parts,
            "drawn_parameters": list(self._scorer.drawn),
            "mean_tokens": float(np.mean(self._tokens.lengths)),
        }
