"""Work of the processes of a group in tests: they capture their share of a case, die, fail."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from finetune.data.tokens import TokenizedTexts, tokenize
from finetune.model.scorer import Scorer
from finetune.parallel.process_group import ProcessGroup
from finetune.parallel.processes import joined_group
from finetune.parallel.weights import is_sharded, local_part
from finetune.scorers import build_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings, ShardingSettings
from ntk_dist.jacobian.batches import length_buckets


@dataclass(frozen=True)
class Case:
    """A model with adapter and head, and what to capture of it."""

    model: str
    targets: tuple[str, ...]
    texts: tuple[str, ...]
    dtype: str = "float32"
    adapter: str = "lora"
    head: str = "random"
    outputs: int = 2
    batch_size: int = 2
    checkpointing: bool = False
    alone: bool = False

    def settings(self) -> tuple[ModelSettings, AdapterSettings, HeadSettings]:
        model = ModelSettings(
            self.model,
            dtype=self.dtype,  # type: ignore[arg-type]
            checkpointing=self.checkpointing,
            alone=self.alone,
        )
        adapter = AdapterSettings(self.adapter, 2, 4.0, self.targets, "random")  # type: ignore[arg-type]
        return model, adapter, HeadSettings(self.head)  # type: ignore[arg-type]

    def options(self) -> dict[str, Any]:
        return {"n_outputs": self.outputs, "adapter_seed": 1, "head_seed": 2}

    def tokens(self) -> TokenizedTexts:
        return tokenize(self.settings()[0], self.texts, template=None, max_length=32)

    def batches(self) -> list[list[int]]:
        lengths = self.tokens().lengths
        buckets = length_buckets(lengths, batch_tokens=10_000, batch_size=self.batch_size)
        return [bucket.tolist() for bucket in buckets]


def capture(
    cases: Mapping[str, Case], folder: Path, damaged: Mapping[str, ModelSettings], environment: Mapping[str, str] = {}
) -> tuple[dict[str, dict[str, int]], dict[str, str]]:
    """Leave rows and scores by example in files of this process, one a case, and load damaged models.

    Returns:
        What it held of each model, and the error that each damaged one gave.
    """
    os.environ.update(environment)
    torch.set_num_threads(1)
    with joined_group() as group:
        facts = {name: capture_case(case, folder / f"{name}-{group.rank}", group) for name, case in cases.items()}
        return facts, {name: refusal(model, group) for name, model in damaged.items()}


def capture_case(case: Case, file: Path, group: ProcessGroup) -> dict[str, int]:
    """Leave what this process captures of a case; return what it held of the model."""
    tokens, found = case.tokens(), dict[str, Tensor]()
    sharded = build_scorer(*case.settings(), **case.options(), sharding=ShardingSettings(group.size))
    assert sharded.is_sharded
    before = held(sharded)
    for positions, counts in group.rounds(case.batches()):
        scores, rows = sharded.rows(tokens.batch(positions), lambda logits: logits)
        for place, position in enumerate(positions if counts else []):
            found[f"{position}/scores"] = scores[place].contiguous()
            found |= {f"{position}/{part}": values[place].contiguous() for part, values in rows.items()}
    save_file(found, file.with_name(f"{file.name}.safetensors"))
    after = held(sharded)
    return {"before": before["own"], "after": after["own"], "all": after["all"]}


def refusal(model: ModelSettings, group: ProcessGroup) -> str:
    """Return the error that a damaged model gives in this process."""
    adapter, sharding = AdapterSettings("lora", 2, 4.0, ("q_proj",)), ShardingSettings(group.size)
    try:
        build_scorer(
            model, adapter, HeadSettings("random"), n_outputs=2, adapter_seed=1, head_seed=2, sharding=sharding
        )
    except ValueError as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def held(scorer: Scorer) -> dict[str, int]:
    """Return the numbers that this process has of the sharded weights, and those that there are."""
    sharded = [parameter for parameter in scorer.model.parameters() if is_sharded(parameter)]
    own = sum(parameter.numel() + local_part(parameter).numel() for parameter in sharded)
    return {"own": own, "all": sum(parameter.ds_numel for parameter in sharded)}
