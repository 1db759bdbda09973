"""Names that people use for layer sets, criteria and columns beside those of the tables."""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from orchestrator.sweep.layer_sets import compress

CRITERIA: Mapping[str, str] = MappingProxyType({
    "kappa": "condition_relative", "condition": "condition_relative", "condition_number": "condition_relative",
    "cond": "condition_relative", "rank": "effective_rank", "erank": "effective_rank", "kta": "alignment",
    "label_alignment": "alignment", "loo": "leave_one_out", "loocv": "leave_one_out", "loss": "eval_loss",
    "validation_loss": "eval_loss", "val_loss": "eval_loss", "test_loss": "eval_loss",
})  # fmt: skip
"""Criteria of `select` by other names; columns of `cells` that a criterion reads name it too."""

COLUMNS: Mapping[str, str] = MappingProxyType({
    "lambda": "lambda_given", "loss": "eval_loss", "accuracy": "eval_accuracy", "acc": "eval_accuracy",
    "f1": "eval_f1", "mcc": "eval_mcc", "pearson": "eval_pearson", "kappa": "condition_number_relative_sigma",
    "condition": "condition_number_relative_sigma", "rank": "effective_rank", "loo": "leave_one_out_loss",
    "alignment": "label_alignment", "parameters": "n_parameters",
})  # fmt: skip
"""Columns of `cells` by other names."""

_LAYERS = re.compile(r"(?:layers?[: ]?)?\s*(\d+(?:-\d+)?(?:,\s*\d+(?:-\d+)?)*)", re.IGNORECASE)
_MOST_LAYERS = 10_000


def simplified(name: str) -> str:
    """Return a name in small letters, with _ between its words."""
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def layer_set_named(name: str, known: Sequence[str]) -> str:
    """Return the layer set that a name means: `4` is `layers:4`, `query` is `target:query`, `all` that of all layers.

    Args:
        name: what a user wrote.
        known: names of the layer sets that there are; where none is meant, the name is returned as it is.
    """
    if name in known:
        return name
    layers = {each: _layers_of(each.removeprefix("layers:")) for each in known if each.startswith("layers:")}
    if simplified(name) in ("all", "all_layers") and layers:
        largest = max(layers, key=lambda each: len(layers[each]))
        return largest if set().union(*layers.values()) == layers[largest] else name
    if written := _LAYERS.fullmatch(name.strip()):
        wanted = _layers_of(written[1])
        return next((each for each, its in layers.items() if its == wanted), f"layers:{compress(sorted(wanted))}")
    return next((each for each in (f"target:{name}", f"groups:{name}") if each in known), name)


def _layers_of(written: str) -> set[int]:
    found: set[int] = set()
    for part in written.split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdecimal() or not (last or first).isdecimal():
            return set()
        found |= set(range(int(first), min(int(last or first), int(first) + _MOST_LAYERS) + 1))
    return found
