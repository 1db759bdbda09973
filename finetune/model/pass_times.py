"""Times of passes through a model, measured on a copy of its first layers with random weights."""

import time
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial

import torch

from finetune.libraries.faults import loading
from finetune.libraries.quiet import quiet
from finetune.model.adapted import ScorerSettings
from finetune.model.architecture import n_layers
from finetune.model.batching import one_score
from finetune.model.device import check_device
from finetune.model.dry_run import shallow_config
from finetune.model.inspection import linear_parameters
from finetune.model.loading import LoadedModel, drawn_model, load_config
from finetune.model.scorer import UnshardedScorer, unsharded_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from ntk_dist.jacobian.batches import Batch
from ntk_dist.timing import fastest, processor_clock

_FEW = 8
"""Tokens of the small batch."""


@dataclass(frozen=True)
class PassTimes:
    """Times of passes through a model.

    Attributes:
        flops: floating-point operations a second, two for each weight of a linear module and token.
        layer_seconds: time of a pass through a layer, forward or backward, of a batch of no tokens.
    """

    flops: float
    layer_seconds: float


def pass_times(
    model: ModelSettings, adapter: AdapterSettings, *, n_outputs: int, examples: int, tokens: int, threads: int
) -> PassTimes:
    """Measure passes forward and backward of a small batch and of a usual one, on the model's device.

    Args:
        model: the model, with its precision and device.
        adapter: what is adapted.
        n_outputs: number of outputs C.
        examples: examples of a usual batch.
        tokens: tokens of each.
        threads: processors that compute it, where it is on no GPU.

    Raises:
        FinetuneError, NtkError: the model cannot be made, or run.
    """
    scorer = _shallow_scorer(model, adapter, n_outputs)
    network = scorer.model
    layers, weights = n_layers(network), linear_parameters(network)
    small, usual = ((1, _FEW), (max(2, examples), max(_FEW, tokens)))
    batches = [_texts(scorer, *shape) for shape in (small, usual)]
    clock = time.perf_counter if scorer.device.type == "cuda" else processor_clock(threads)
    seconds = [fastest(partial(scorer.rows, batch, one_score), clock) for batch in batches]
    flops = [2 * 2.0 * weights * count * length for count, length in (small, usual)]
    speed = (flops[1] - flops[0]) / max(seconds[1] - seconds[0], 1e-3 * seconds[1])
    return PassTimes(speed, max(0.0, seconds[0] - flops[0] / speed) / (2 * max(1, layers)))


def _shallow_scorer(model: ModelSettings, adapter: AdapterSettings, n_outputs: int) -> UnshardedScorer:
    drawn = replace(model, weights="random")
    config = load_config(drawn, n_outputs)
    config = shallow_config(config) or config
    device = check_device(model)
    with loading(model.path), quiet():
        network = drawn_model(drawn, deepcopy(config), language_model=False, device=device)
    network.requires_grad_(False).eval()
    head = HeadSettings(kind="random")
    return unsharded_scorer(
        ScorerSettings(drawn, adapter, head, n_outputs, adapter_seed=0, head_seed=0), LoadedModel(network, frozenset())
    )


def _texts(scorer: UnshardedScorer, count: int, length: int) -> Batch:
    """Return texts of random tokens that end as a tokenizer's would."""
    config = scorer.model.config.get_text_config()
    ids = torch.randint(0, config.vocab_size, (count, length), generator=torch.Generator().manual_seed(0))
    end = getattr(config, "eos_token_id", None)
    if isinstance(end, int):
        ids[ids == end] = (end + 1) % config.vocab_size
        ids[:, -1] = end
    return Batch(ids, torch.ones_like(ids)).to(scorer.device)
