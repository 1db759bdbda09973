"""Condition numbers of pretrained weights, by which layers can be chosen without any data."""

from collections.abc import Mapping

import torch

from finetune.model.architecture import find_targets
from finetune.model.loading import load_model
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings


def weight_condition_numbers(
    model: ModelSettings, adapter: AdapterSettings, head: HeadSettings, *, n_outputs: int
) -> Mapping[str, float]:
    """Return by group sigma_max / sigma_min of the pretrained weight of its module: inf where sigma_min is 0.

    Of a weight (n_out, n_in) there are min(n_out, n_in) singular values; they are taken in float64, whatever the
    precision of the model.

    Args:
        model: the pretrained model, which is loaded.
        adapter: names the target modules.
        head: whether the model is a language model.
        n_outputs: number of outputs C.

    Raises:
        FinetuneError: a named subclass says whether model or target is wrong.
        NonFiniteError: a weight is NaN or infinite; names the parameter.
    """
    language_model = head.kind == "label_words"
    # The seed draws the head, whose weights are not looked at.
    network = load_model(model, n_outputs=n_outputs, language_model=language_model, seed=0).model
    targets = find_targets(network, adapter.target_modules)
    return {target.group: _condition_number(target.module.weight) for target in targets}


def _condition_number(weight: torch.Tensor) -> float:
    # Tensors divide by zero where floats would raise.
    singular = torch.linalg.svdvals(weight.detach().to(torch.float64))
    return float(singular[0] / singular[-1])
