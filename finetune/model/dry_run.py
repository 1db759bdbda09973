"""A dry run: a copy of the model with random weights, run on two texts, before anything is computed with the model."""

from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedConfig

from finetune.data.tokens import TokenizedTexts
from finetune.errors import FinetuneError, ModelLoadError
from finetune.libraries.faults import loading
from finetune.libraries.quiet import quiet
from finetune.model.adapted import ScorerSettings
from finetune.model.batching import Found, TrialTexts, check_batching, largest_error, one_score
from finetune.model.loading import LoadedModel, drawn_model, load_config, model_from
from finetune.model.model_state import undone
from finetune.model.scorer import Scorer, unsharded_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from ntk_dist.device.faults import is_out_of_memory
from ntk_dist.errors import NonFiniteError, NtkError
from ntk_dist.jacobian.batches import Batch

_SMALL = 30_000_000
"""Parameters of a model that is copied whole: drawing them takes a fraction of a second."""

_LARGE = 150_000_000
"""Parameters above which nothing is copied, because `plan` has to take little time and memory."""

_TOKENS = 64
"""Tokens of the longer text, if there is one."""

_DIFFERENT = 1e-3
"""Relative error of a text in a batch with another one, above which it is checked closely."""

_LAYERS = 2
"""Layers of a shallow copy."""


def dry_run(
    model: ModelSettings,
    adapter: AdapterSettings,
    head: HeadSettings,
    texts: TokenizedTexts,
    *,
    n_outputs: int,
    batch_tokens: int | None = None,
    together: bool = True,
) -> None:
    """Check that a model can be run and differentiated, with its adapter and head, without its weights.

    A copy with random weights, on the processor, gives outputs and rows of two short texts. A model that is not small
    is tried with its first two layers alone. Where that fails, or layers cannot be left out, it is tried whole if it
    is not large; of a large one, and where memory is too small for a copy, the first stage that runs it tells.

    Args:
        model: the model.
        adapter: what is adapted.
        head: what gives the outputs; of a probe the random head before it.
        texts: tokenized as the examples will be.
        n_outputs: number of outputs C.
        batch_tokens: tokens of a batch, padding included; where two texts are too many, one is run alone.
        together: whether texts of any two lengths may share a batch, so that it is checked that they stay apart.

    Raises:
        FinetuneError, NtkError: as `unsharded_scorer` and `Scorer.rows`; a `ModelRunError` where a library raises; a
            `BatchingError` where the two change each other's numbers.
    """
    try:
        # as if of random weights: nothing but the configuration is looked for
        config = load_config(replace(model, weights="random"), n_outputs)
        own = _Trial(
            _text(config), model, adapter, head, _short_batch(texts, batch_tokens), n_outputs, config, together
        )
        if _size(own) > _SMALL and (shallow := shallow_config(config)) is not None:
            cut = replace(own, config=shallow, text=_text(shallow))
            # a failure of this copy may come from the layers that it lacks
            if _size(cut) <= _LARGE and _passes(cut):
                return
        if _size(own) <= _LARGE:
            _run(own)
    except Exception as error:
        if not is_out_of_memory(error):
            raise


@dataclass(frozen=True)
class _Trial:
    """A copy of the model and the inputs of its trial; two trials are equal if their descriptions are."""

    text: str
    model: ModelSettings
    adapter: AdapterSettings
    head: HeadSettings
    batch: Batch = field(compare=False)
    n_outputs: int
    config: PreTrainedConfig = field(compare=False)
    together: bool

    @property
    def language_model(self) -> bool:
        return self.head.kind == "label_words"


def _text(config: PreTrainedConfig) -> str:
    return str(config.to_json_string(use_diff=False))


def _short_batch(texts: TokenizedTexts, tokens: int | None) -> Batch:
    """Return the shortest text beside a longer one of few tokens, so that one is padded."""
    order = np.argsort(texts.lengths, kind="stable")
    longer = order[texts.lengths[order] > texts.lengths[order[0]]]
    most = _TOKENS if tokens is None else min(_TOKENS, tokens // 2)
    fitting = longer[texts.lengths[longer] <= most]
    chosen = [order[0], *(fitting[-1:] if len(fitting) else longer[:1] if len(longer) else order[1:2])]
    alone = tokens is not None and tokens < len(chosen) * texts.lengths[chosen].max()
    return texts.batch(chosen[:1] if alone else chosen)


def shallow_config(config: PreTrainedConfig) -> PreTrainedConfig | None:
    """Return the configuration of the model's first layers alone; None where it does not say how many there are."""
    cut = deepcopy(config)
    part: Any = cut.get_text_config()
    layers = getattr(part, "num_hidden_layers", None)
    if not isinstance(layers, int) or layers <= _LAYERS:
        return None
    try:
        part.num_hidden_layers = _LAYERS
        for name, value in part.to_dict().items():
            if isinstance(value, list) and len(value) == layers and hasattr(part, name):
                setattr(part, name, value[:_LAYERS])
    except Exception:  # a configuration may have a property of that name, or check each change
        return None
    return cut


@lru_cache(maxsize=64)
def _size(trial: _Trial) -> float:
    """Return the number of parameters of a copy; infinity if it cannot be made."""
    try:
        with loading(trial.model.path), quiet(), torch.device("meta"):
            network = model_from(trial.model, trial.config, language_model=trial.language_model)
    except FinetuneError:
        return float("inf")
    return float(sum(parameter.numel() for parameter in network.parameters()))


def _passes(trial: _Trial) -> bool:
    try:
        _run(trial)
    except (FinetuneError, NtkError):
        return False
    return True


# a sweep of several tasks, ranks or heads asks for the same more than once
@lru_cache(maxsize=64)
def _run(trial: _Trial) -> None:
    # a GPU may be elsewhere, and has precisions that a processor computes no gradients in
    dtype = trial.model.dtype if trial.model.device == "cpu" else "float32"
    settings = replace(trial.model, weights="random", device="cpu", dtype=dtype)
    try:
        with loading(settings.path), quiet():
            network = drawn_model(
                settings, deepcopy(trial.config), language_model=trial.language_model, device=torch.device("cpu")
            )
    except ModelLoadError:
        # by the rules for random weights, which a pretrained model does without
        return
    network.requires_grad_(False).eval()
    loaded = LoadedModel(network, frozenset())
    try:
        scorer = unsharded_scorer(
            ScorerSettings(settings, trial.adapter, trial.head, trial.n_outputs, adapter_seed=0, head_seed=0), loaded
        )
        with undone(scorer.model):
            found = scorer.rows(trial.batch, one_score)
            compared = trial.together and settings.dtype in ("float32", "float64") and len(trial.batch) > 1
            is_apart = not compared or _seem_apart(scorer, trial.batch, found)
        if not is_apart:
            short, long = trial.batch.apart()
            texts = TrialTexts(short, long, trial.batch, short)
            check_batching(scorer.model, partial(scorer.rows, outputs=one_score), texts, alone=False)
    except NonFiniteError:
        # of weights that nobody uses
        return


def _seem_apart(scorer: Scorer, batch: Batch, found: Found) -> bool:
    """Tell, roughly, whether the texts of a batch have the same numbers by themselves, one after the other."""
    alone = [scorer.rows(each, one_score) for each in batch.apart()]
    return all(largest_error(found, each, position) <= _DIFFERENT for position, each in enumerate(alone))
