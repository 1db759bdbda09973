"""Modules of a model that are worth adapting, for people who do not know their names."""

from collections import Counter
from dataclasses import dataclass

from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as OF_PEFT
from transformers import PreTrainedModel

from finetune.data.limits import text_limits
from finetune.data.tokens import check_knows_words, load_tokenizer, room_for_text
from finetune.errors import TargetError
from finetune.model.architecture import base_model, find_targets, linears, n_layers
from finetune.model.loading import empty_model
from finetune.settings import ModelSettings

_USUAL = (
    ("query", "value"),
    ("q_proj", "v_proj"),
    ("q_lin", "v_lin"),
    ("q", "v"),
    ("c_attn",),
    ("Wqkv",),
    ("qkv_proj",),
    ("query_key_value",),
)
"""Names of the projections of attention to queries and values, or of all three together."""


@dataclass(frozen=True)
class Suggestion:
    """What is known of a model before anything is loaded.

    Attributes:
        model_type: transformers' name of the architecture.
        n_layers: layers that have linear modules of their own.
        targets: names of modules to adapt, those that peft adapts by default where it knows the architecture.
        others: names of its other linear modules.
        room: most tokens of a text; None where no limit is known.
    """

    model_type: str
    n_layers: int
    targets: tuple[str, ...]
    others: tuple[str, ...]
    room: int | None


def suggest(model: ModelSettings) -> Suggestion:
    """Return what to adapt in a model, without loading a weight.

    Raises:
        ModelLoadError: there is no configuration or no tokenizer.
        TargetError: the model has no linear module, or none that could be told apart by its name.
    """
    network = empty_model(model, n_outputs=2, language_model=False)
    names = Counter(path.rpartition(".")[2] for path in linears(base_model(network)))
    model_type = str(network.config.model_type)
    usual = [tuple(OF_PEFT.get(model_type, ())), *_USUAL]
    targets = next((each for each in usual if each and _fits(network, each)), tuple(names))
    find_targets(network, targets or ["query"])  # raises the error that a plan would
    return Suggestion(
        model_type=model_type,
        n_layers=n_layers(network),
        targets=targets,
        others=tuple(name for name in names if name not in targets),
        room=room_for_text(text_limits(model), load_tokenizer(model)),
    )


def _fits(network: PreTrainedModel, targets: tuple[str, ...]) -> bool:
    try:
        found = find_targets(network, targets)
    except TargetError:
        return False
    return all(target.layer is not None for target in found)


def token_lengths(model: ModelSettings, texts: list[str], pairs: list[str] | None) -> list[int]:
    """Return the number of tokens of each text, special tokens included, however many there are.

    Raises:
        ModelLoadError: there is no tokenizer, or it has no vocabulary.
    """
    tokenizer = load_tokenizer(model)
    check_knows_words(model, tokenizer)
    encoded = tokenizer(texts, pairs, truncation=False, verbose=False)
    return [len(ids) for ids in encoded["input_ids"]]
