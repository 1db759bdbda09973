"""One architecture, tried: its rows in a padded batch beside plain autograd on one example at a time."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from finetune.data.tokens import TokenizedTexts
from finetune.errors import BatchingError, FinetuneError, HeadError, UnsupportedModelError
from finetune.model import adapted
from finetune.model.adapted import ScorerSettings
from finetune.model.architecture import base_prefix, is_decoder, linears, reads_mask
from finetune.model.batching import TrialTexts, check_batching, one_score
from finetune.model.label_words import WordIds
from finetune.model.loading import LoadedModel, empty_model, load_config, load_model
from finetune.model.model_state import undone
from finetune.model.precision import KeepDouble
from finetune.model.scorer import Scorer, unsharded_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from ntk_dist.errors import InputLayoutError, NotRecordedError, NtkError, TiedWeightsError
from tests.architectures.tiny_configs import VOCABULARY, tiny_config
from tests.single_example import reference_rows, relative_error

Use = Literal["classifier", "label words"]
Result = Literal["right", "right alone", "refused", "not built", "wrong"]

MOST_PARAMETERS = 3_000_000
LIMIT = 1e-10
_WORDS, _MASK = [7, 8], 5
_N_OUTPUTS = len(_WORDS)


@dataclass(frozen=True)
class Outcome:
    """Outcome of a trial.

    Attributes:
        result: what it came to; "right alone" is refused in batches, and right with `compute.batching: alone`.
        reason: the message, or what differs; empty where it is right.
        without: names of linear modules that cannot be targets; all others were.
        targets: last parts of the names of all linear modules of the base model.
    """

    result: Result
    reason: str = ""
    without: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()


def architectures() -> list[tuple[str, Use]]:
    """Every architecture of the installed transformers, for each use that its auto classes know."""
    classifiers, causal = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    found: list[tuple[str, Use]] = []
    for model_type in sorted({*classifiers, *causal}):
        if model_type in classifiers:
            found.append((model_type, "classifier"))
        if model_type in causal or model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
            found.append((model_type, "label words"))
    return found


def try_architecture(model_type: str, use: Use, folder: Path) -> Outcome:
    """Return how a tiny model of the architecture does; what is neither a message nor a number comes through."""
    language_model = use == "label words"
    settings = ModelSettings(str(folder), dtype="float64", weights="random")
    try:
        with torch.random.fork_rng(devices=[]):
            tiny_config(model_type).save_pretrained(folder)
        network = empty_model(settings, n_outputs=_N_OUTPUTS, language_model=language_model)
    except (UnsupportedModelError, HeadError) as error:
        return Outcome("refused", f"{type(error).__name__}: {error}".replace(str(folder), "FOLDER"))
    except Exception as error:  # whatever an architecture says of its own configuration
        return Outcome("not built", f"{type(error).__name__}: {error}".replace(str(folder), "FOLDER"))
    size = sum(parameter.numel() for parameter in network.parameters())
    if size > MOST_PARAMETERS:
        name, parameter = max(network.named_parameters(), key=lambda named: named[1].numel())
        return Outcome("not built", f"{size} parameters, {name} {tuple(parameter.shape)}")
    found = _in_batches_or_alone(settings, network, use, checked=_uses(model_type)[0] == use)
    reason = found.reason.replace(str(folder), "FOLDER")
    return replace(found, reason=reason, targets=_names_of_linears(network))


def _in_batches_or_alone(settings: ModelSettings, network: PreTrainedModel, use: Use, *, checked: bool) -> Outcome:
    language_model = use == "label words"
    try:
        return _tried(settings, network, language_model, checked=checked)
    except (BatchingError, InputLayoutError) as error:
        refused = _refused(error)
    except (FinetuneError, NtkError) as error:
        return _refused(error)
    alone = _tried(replace(settings, alone=True), network, language_model, checked=True)
    return replace(refused, result="right alone", without=alone.without) if alone.result == "right" else refused


def _names_of_linears(network: PreTrainedModel) -> tuple[str, ...]:
    try:
        prefix = base_prefix(network)
    except UnsupportedModelError:
        return ()
    inside = [name.rpartition(".")[2] for name in linears(network) if name.startswith(prefix)]
    return tuple(dict.fromkeys(name for name in inside if not name.isdigit()))


def _uses(model_type: str) -> list[Use]:
    return [use for other, use in architectures() if other == model_type]


def _refused(error: Exception) -> Outcome:
    return Outcome("refused", f"{type(error).__name__}: {error}")


def _tried(settings: ModelSettings, network: PreTrainedModel, language_model: bool, *, checked: bool) -> Outcome:
    """Return whether rows are right, with as many targets as can be.

    Args:
        settings: the model.
        network: the same without weights.
        language_model: whether label words are scored.
        checked: whether what is right has to pass what sweeps try before they capture, too.

    Raises:
        FinetuneError, NtkError: the model is refused; a wrong one only by what sweeps try before they capture.
    """
    head = HeadSettings("label_words", False, words=("a", "b")) if language_model else HeadSettings("random")
    without: list[str] = []
    while True:
        try:
            scorer = _scorer(settings, head, every_linear(network, without))
            texts = texts_with(None if scorer.words is None else scorer.words.mask)
            scores, rows = scorer.rows(texts.batch(range(len(texts))), torch.nn.Identity())
            break
        except (NotRecordedError, TiedWeightsError) as error:
            # the message says to leave the module out of the targets
            name = str(error).split()[0]
            if name in without:
                raise
            without.append(name)
    outcome = _compared(scorer, texts, scores, rows)
    if checked or outcome.result == "wrong":
        trial = TrialTexts.of(texts, batch_tokens=2048, crowd=len(texts))
        check_batching(scorer.model, partial(scorer.rows, outputs=one_score), trial, alone=settings.alone)
    names = dict.fromkeys(re.sub(r"^.*\d+\.", "", name) for name in without)
    return replace(outcome, without=tuple(names))


def every_linear(network: PreTrainedModel, without: list[str]) -> tuple[str, ...]:
    """Targets that cover every linear module of a base model but some, as short as they name one a layer."""
    prefix = base_prefix(network)
    left_out = {re.sub(r"\d+", "#", name) for name in without}
    paths = [
        name.removeprefix(prefix)
        for name in linears(network)
        if name.startswith(prefix) and re.sub(r"\d+", "#", name) not in left_out
    ]
    inside: dict[str, list[str]] = {}
    for path in paths:
        inside.setdefault(re.sub(r"^.*?\d+\.", "", path, count=1), []).append(path)
    found: list[str] = []
    for target, named in inside.items():
        matched = [path for path in paths if path == target or path.endswith(f".{target}")]
        layers = {re.search(r"\d+", path)[0] if re.search(r"\d+", path) else None for path in matched}  # type: ignore[index]
        found += [target] if matched == named and len(layers) == len(matched) else named
    # one without any is asked for something that others have
    return tuple(found) or ("query",)


def _scorer(settings: ModelSettings, head: HeadSettings, targets: tuple[str, ...]) -> Scorer:
    adapter = AdapterSettings("none", 1, 1.0, targets)
    with known_words():
        asked = ScorerSettings(settings, adapter, head, _N_OUTPUTS, adapter_seed=0, head_seed=0)
        return unsharded_scorer(asked, asked.loaded_by(load_larger))


def load_larger(settings: ModelSettings, **options: Any) -> LoadedModel:
    """Load a model with larger weights than usual, so that nothing is nearly linear, and with biases."""
    loaded = load_model(settings, **options)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in loaded.model.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
            elif name.endswith("bias") and parameter.is_floating_point():
                parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) * 0.1)
    return loaded


@contextmanager
def known_words() -> Iterator[None]:
    """Inside, label words have these ids: a tokenizer of every architecture cannot be made."""
    original = adapted.word_ids

    def ids(model: ModelSettings, _words: object, n_outputs: int) -> WordIds:
        return WordIds(_WORDS, _MASK if reads_mask(load_config(model, n_outputs)) else None)

    adapted.word_ids = ids  # type: ignore[assignment]
    try:
        yield
    finally:
        adapted.word_ids = original


def texts_with(mask: int | None) -> TokenizedTexts:
    offsets = np.cumsum([0, 5, 11, 7])
    ids = np.random.default_rng(0).integers(10, VOCABULARY - 2, offsets[-1]).astype(np.int32)
    if mask is not None:
        ids[offsets[:-1] + 1] = mask
    return TokenizedTexts(ids, offsets, None, 0)


def _compared(scorer: Scorer, texts: TokenizedTexts, scores: Tensor, rows: dict[str, Tensor]) -> Outcome:
    alone = cache(_alone(scorer, texts))
    expected = reference_rows(alone, len(texts), scorer.groups)
    expected_scores = torch.cat([alone(i).detach() for i in range(len(texts))])
    wrong = {"the outputs": relative_error(scores, expected_scores)}
    total = sum(float(values.norm()) ** 2 for values in expected.values()) ** 0.5
    for group, values in expected.items():
        # a gradient that cancels out is no better than the rounding of what it is the difference of
        wrong[group] = float((rows[group] - values).norm()) / max(float(values.norm()), 1e-6 * total, 1e-300)
    worst = max(wrong, key=lambda name: wrong[name])
    if all(error < LIMIT for error in wrong.values()):
        silent = [group for group, values in expected.items() if not bool(values.any())]
        unknown = next((group for group in silent if _changes(scorer, group, alone.__wrapped__)), None)
        return Outcome("right") if unknown is None else Outcome("wrong", f"{unknown}, whose gradient is unknown")
    return Outcome("wrong", f"{worst} by {wrong[worst]:.1e}")


@torch.no_grad()
def _changes(scorer: Scorer, group: str, alone: Callable[[int], Tensor]) -> bool:
    """Tell whether the outputs of an example depend on the parameters of a group."""
    before = alone(0)
    parameters = [parameter for linear in scorer.groups[group] for parameter in linear.parameters]
    kept = [parameter.clone() for parameter in parameters]
    for parameter in parameters:
        parameter.mul_(1.01).add_(0.01)
    after = alone(0)
    for parameter, own in zip(parameters, kept, strict=True):
        parameter.copy_(own)
    return relative_error(after, before) > 1e-9


def _alone(scorer: Scorer, texts: TokenizedTexts) -> Callable[[int], Tensor]:
    """Return what transformers itself gives for one example without padding, (1, C)."""
    model = scorer.model
    embedding = None if scorer.words is None else model.get_output_embeddings()
    # some go through no graph unless what enters their layers is in one
    with suppress(NotImplementedError):
        model.get_input_embeddings().weight.requires_grad_(True)
    without_cache = {"use_cache": False} if is_decoder(model) else {}

    def scores(i: int) -> Tensor:
        ids = texts.batch([i]).input_ids
        # the words' own head is the library's no more
        head = None if embedding is None else vars(embedding).pop("forward", None)
        try:
            with torch.enable_grad(), KeepDouble(), undone(model):
                logits: Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids), **without_cache).logits
        finally:
            if head is not None:
                vars(embedding)["forward"] = head
        if scorer.words is None:
            return logits
        at = -1 if scorer.words.mask is None else 1
        return logits[:, at, _WORDS]

    return scores
