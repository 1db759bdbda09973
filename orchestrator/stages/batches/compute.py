"""The stage `batches`: the tokens that fit a batch, measured on the capturing device, for a spec with `auto`."""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from finetune.data.targets import kernel_outputs, rows_per_example
from ntk_dist.device.faults import is_out_of_memory
from orchestrator.stages.base.parameters import RowsParameters, ScorerParameters
from orchestrator.stages.batches import SEVERAL
from orchestrator.stages.batches.memory import MemoryLine, batch_limit, fitting_tokens, forget_batch, peak_of
from orchestrator.stages.context.tokenized import read_tokens
from orchestrator.stages.context.work import Product, Work
from orchestrator.store.stage import Stage
from orchestrator.sweep.training_estimates import FITTED_HEADS

logger = logging.getLogger(__name__)


def compute(stage: Stage[RowsParameters], work: Work) -> Product:
    """Measure the memory of small batches of the longest training texts, and choose the largest batch that fits.

    The facts hold `batch_tokens`, which fixes the batches of every stage that reads them, and the bytes by which it was
    chosen. In a group all processes use the largest need and the smallest limit of any of them.
    """
    trial = _Trial(stage, work)
    line = trial.line()
    chosen = fitting_tokens(line, trial.limit - trial.row_bytes, least=trial.longest)
    batch_tokens = max(trial.longest, work.halved(chosen))
    # A single text was tried before, and no batch is smaller.
    while batch_tokens > trial.longest and not trial.fits(batch_tokens):
        batch_tokens = max(trial.longest, batch_tokens // 2)
    logger.info("batches of %d tokens within %d bytes: %s", batch_tokens, trial.limit, line)
    return Product({
        "batch_tokens": batch_tokens,
        "longest": trial.longest,
        "limit_bytes": trial.limit,
        "fixed_bytes": round(line.fixed),
        "bytes_per_token": round(line.per_token),
        "row_bytes": trial.row_bytes,
    })  # fmt: skip


class _Trial:
    """Batches of the longest training texts, as `capture` would run them.

    Attributes:
        longest: tokens of the longest text.
        limit: bytes that a batch may take on every process of the group.
        row_bytes: those of the rows of the most examples that a batch may have. Short texts have more rows a token than
            the long ones that are measured; on a GPU those of the batch before are still on their way.
    """

    def __init__(self, stage: Stage[RowsParameters], work: Work) -> None:
        p = stage.parameters
        dataset = work.input(stage, "dataset")
        self._work = work
        self._tokens = read_tokens(dataset, "train", 0, len(dataset.array("train.labels")))
        self._by_length = np.argsort(-self._tokens.lengths, kind="stable")
        self._most_examples: int = p.batch_size
        scorer = work.scorer(_without_fitted_head(p.scorer), None, p.groups)
        self._device = scorer.device
        row_dtype = getattr(torch, p.scorer.row_dtype)
        outputs = partial(kernel_outputs, outputs=p.outputs)
        self._rows: Callable[..., object] = partial(scorer.rows, outputs=outputs, row_dtype=row_dtype)
        width = sum(linear.n_parameters for group in p.groups for linear in scorer.groups[group])
        rows = self._most_examples * rows_per_example(p.scorer.n_outputs, p.outputs)
        copies = 1 if self._device.type == "cpu" else 2
        self.row_bytes: int = copies * rows * width * row_dtype.itemsize
        self.longest = int(self._tokens.lengths.max())
        budget = int(work.sweep.spec.compute.memory_budget)
        self.limit: int = min(work.process_group.gathered(batch_limit(self._device, budget)))

    def line(self) -> MemoryLine:
        """Return the memory of batches, measured with one text and with a few together, if these are sure to fit."""
        self._bytes_of(1)  # libraries load, and take their own memory, with the first batch
        alone = self._bytes_of(1)
        most = min(SEVERAL, self._most_examples)
        several = next((n for n in (most, 2) if n <= most and n * alone <= self.limit), 1)
        measured = [(self.longest, alone)]
        if several > 1:
            measured.append((several * self.longest, self._bytes_of(several)))
        return MemoryLine.through(measured)

    def fits(self, batch_tokens: int) -> bool:
        """Tell whether a batch of that many tokens runs within the limit, with as many examples as batches may have."""
        try:
            return self._bytes_of(min(self._most_examples, batch_tokens // self.longest)) <= self.limit
        except Exception as error:
            # The other processes wait inside the model for this one: the group restarts with half the batch.
            if self._work.process_group.size > 1 or not is_out_of_memory(error):
                raise
        forget_batch(self._device)
        return False

    def _bytes_of(self, n_examples: int) -> int:
        """Return the bytes of a batch of that many examples, on the process where it needs most."""
        batch = self._tokens.batch(np.resize(self._by_length, n_examples))
        most: int = max(self._work.process_group.gathered(peak_of(lambda: self._rows(batch), self._device)))
        return most


def _without_fitted_head(scorer: ScorerParameters) -> ScorerParameters:
    """Return the parameters with a random head in place of a fitted one, which would need batches not chosen yet."""
    if scorer.head.kind not in FITTED_HEADS:
        return scorer
    return replace(scorer, head=replace(scorer.head, kind="random"))
