"""A trained cell as a folder that peft loads: its adapter, and the parts of the head that the checkpoint lacks."""

import inspect
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from finetune.errors import AdapterExportError
from finetune.libraries.quiet import quiet
from finetune.model.adapted import ScorerSettings
from finetune.model.adapter import lora_weights
from finetune.model.architecture import base_prefix, is_decoder
from finetune.model.label_words import WordIds, at_mask
from finetune.model.loading import load_model
from finetune.model.scorer import Scorer, unsharded_scorer
from finetune.training.trainable import Displacement
from ntk_dist.jacobian.batches import Batch

HEAD_BIAS = "head_bias.safetensors"
"""The second file: biases of a fitted head whose class in transformers has none, so that peft does not load them."""

LARGEST_DIFFERENCE = 1e-4
"""Between logits of the folder and of the cell, in units of the largest logit or 1; rounding is far below it."""

_NAME = "default"

Modules = Mapping[str, Mapping[str, Tensor]]
"""Weights by their names in a module, by its path."""


@dataclass(frozen=True)
class PeftFolder:
    """A folder that was written.

    Attributes:
        modules: how many modules have LoRA matrices in it.
        saved: the modules that it holds whole: the head, and what else the checkpoint lacks.
        head_bias: whether it has the second file.
        model_class: dotted name of the class of the model that the adapter is for.
        difference: largest difference between logits of the loaded folder and of the cell.
        n_examples: examples that were compared.
    """

    modules: int
    saved: tuple[str, ...]
    head_bias: bool
    model_class: str
    difference: float
    n_examples: int


def write_peft_folder(
    settings: ScorerSettings, displacement: Displacement, folder: Path, examples: Sequence[Batch]
) -> PeftFolder:
    """Write the weights of a trained cell as an adapter of peft, load it again, and compare logits.

    Args:
        settings: the model at the pretrained point of the cell, with LoRA.
        displacement: the trained weights minus those.
        folder: where `adapter_config.json` and `adapter_model.safetensors` go.
        examples: batches of one example each, whose logits are compared.

    Raises:
        AdapterExportError: the cell has no LoRA, its base model is random, its weights are not finite, or the loaded
            folder has other logits.
        FinetuneError: as `finetune.scorers.build_scorer`.
    """
    _refuse_what_no_adapter_holds(settings, displacement)
    scorer = unsharded_scorer(settings)
    _move(scorer, displacement)
    with torch.no_grad():
        wanted = [scorer.logits(each) for each in examples]
    lora = {path: pair for path, pair in lora_weights(scorer.model).items() if pair[1].any()}
    whole = _whole_modules(scorer, settings, displacement)
    words, model_class = scorer.words, f"{type(scorer.model).__module__}.{type(scorer.model).__name__}"
    del scorer  # a large model is held once
    head_bias = _save(settings, lora, whole, folder)
    found = _logits_of(folder, settings, words, examples)
    difference = max(float((a - b).abs().max()) for a, b in zip(wanted, found, strict=True))
    largest = max(1.0, *(float(each.abs().max()) for each in wanted))
    if not difference <= LARGEST_DIFFERENCE * largest:
        raise AdapterExportError(
            f"the adapter in {folder}, loaded by peft, has logits that differ from the cell's by {difference:.3g}; "
            f"please report that, with the architecture ({model_class})"
        )
    return PeftFolder(len(lora), tuple(whole), head_bias, model_class, difference, len(examples))


def _refuse_what_no_adapter_holds(settings: ScorerSettings, displacement: Displacement) -> None:
    if settings.adapter.kind != "lora":
        raise AdapterExportError(
            "adapter.kind: none trains weights of the model itself, which no adapter of peft holds; only cells of "
            "adapter.kind: lora are exported"
        )
    if settings.model.weights != "pretrained":
        raise AdapterExportError("model.weights: random has no checkpoint that an adapter could be loaded onto")
    for name, moved in displacement.items():
        if not bool(torch.isfinite(moved).all()):
            raise AdapterExportError(f"{name} of the cell is not finite: its training diverged; export another cell")


@torch.no_grad()
def _move(scorer: Scorer, displacement: Displacement) -> None:
    parameters = {
        f"{linear.name}.{kind}": parameter
        for group in scorer.trained.values()
        for linear in group
        for kind, parameter in linear.named_parameters()
    }
    for name, moved in displacement.items():
        parameters[name] += moved.to(parameters[name])


def _whole_modules(
    scorer: Scorer, settings: ScorerSettings, displacement: Displacement
) -> dict[str, dict[str, Tensor]]:
    """Return the weights of the modules that differ from the checkpoint, or that it lacks, but for LoRA's."""
    names = [*scorer.drawn, *(name for name in displacement if ".lora_" not in name)]
    if settings.head.kind in ("ridge", "logistic"):
        final = next(name for name, module in scorer.model.named_modules() if module is scorer.final)
        names.append(f"{final}.weight")
    paths = sorted({_saved_with(name, scorer.model) for name in names})
    outermost = [path for path in paths if not any(path.startswith(f"{other}.") for other in paths)]
    return {path: _copied(scorer.model.get_submodule(path)) for path in outermost}


def _saved_with(name: str, model: PreTrainedModel) -> str:
    """Return the module with which a parameter is saved: a part of the head as a whole, else the parameter's own."""
    path = name.rpartition(".")[0]
    return path if f"{path}.".startswith(base_prefix(model)) else path.partition(".")[0]


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}


def _save(
    settings: ScorerSettings,
    lora: Mapping[str, tuple[Tensor, Tensor]],
    whole: Modules,
    folder: Path,
) -> bool:
    """Write the folder; return whether biases of a head had to go to the second file."""
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import save_file

    model = settings.loaded_by(load_model).model
    biases = {f"{path}.{name}": value for path, name, value in _biases_without_place(model, whole)}
    config = LoraConfig(
        task_type=_task_type(settings, model),
        base_model_name_or_path=settings.model.path,
        revision=settings.model.revision,
        r=settings.adapter.rank,
        lora_alpha=settings.adapter.lora_alpha,
        lora_dropout=0.0,
        target_modules=list(lora) or list(settings.adapter.target_modules),
        modules_to_save=list(whole) or None,
        inference_mode=True,
    )
    with _silent_peft(), torch.random.fork_rng(devices=[]):
        adapted = get_peft_model(model, config)
        _fill(adapted.base_model.model, lora, whole, biases)
        adapted.save_pretrained(str(folder))
    if biases:
        save_file(biases, folder / HEAD_BIAS)
    return bool(biases)


@contextmanager
def _silent_peft() -> Iterator[None]:
    # it says that the weights of Conv1D are transposed, and which of a head it has copied
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _task_type(settings: ScorerSettings, model: PreTrainedModel) -> str | None:
    if settings.language_model:
        return "CAUSAL_LM" if is_decoder(model) else None
    # peft's wrapper of classifiers gives them all arguments of transformers' own
    return "SEQ_CLS" if "inputs_embeds" in inspect.signature(model.forward).parameters else None


def _biases_without_place(model: PreTrainedModel, whole: Modules) -> Iterable[tuple[str, str, Tensor]]:
    for path, values in whole.items():
        known = model.get_submodule(path).state_dict()
        yield from ((path, name, value) for name, value in values.items() if name not in known)


@torch.no_grad()
def _fill(
    model: nn.Module,
    lora: Mapping[str, tuple[Tensor, Tensor]],
    whole: Modules,
    elsewhere: Mapping[str, Tensor],
) -> None:
    for path, (a, b) in lora.items():
        module: Any = model.get_submodule(path)
        module.lora_A[_NAME].weight.copy_(a)
        module.lora_B[_NAME].weight.copy_(b)
    for path, values in whole.items():
        wrapper: Any = model.get_submodule(path)
        kept = {name: value for name, value in values.items() if f"{path}.{name}" not in elsewhere}
        wrapper.modules_to_save[_NAME].load_state_dict(kept)


@torch.no_grad()
def _logits_of(
    folder: Path, settings: ScorerSettings, words: WordIds | None, examples: Sequence[Batch]
) -> list[Tensor]:
    """Return the logits of the folder as a user loads it, of one example each."""
    from peft import PeftModel
    from safetensors.torch import load_file

    model = settings.loaded_by(load_model).model
    device = model.device
    with _silent_peft():
        loaded = PeftModel.from_pretrained(model, str(folder)).eval()
    if (folder / HEAD_BIAS).exists():
        for name, bias in load_file(folder / HEAD_BIAS).items():
            loaded.base_model.model.get_submodule(name.rpartition(".")[0]).modules_to_save[_NAME].bias = nn.Parameter(
                bias.to(device)
            )
    return [_read(loaded(**_inputs(each.to(device))).logits, each, words) for each in examples]


def _read(logits: Tensor, example: Batch, words: WordIds | None) -> Tensor:
    if words is None:
        return logits
    place = example.last_positions if words.mask is None else at_mask(example, words.mask)[1]
    return logits[0, place.to(logits.device)][:, words.words]


def _inputs(batch: Batch) -> dict[str, Tensor]:
    types = {} if batch.token_type_ids is None else {"token_type_ids": batch.token_type_ids}
    return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, **types}
