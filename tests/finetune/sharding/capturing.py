"""A process of a model group: captures its share of the batches of a case and leaves the rows in a file."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from finetune.sharding.processes import joined_group
from finetune.sharding.scorer import ShardedScorer, build_sharded_scorer
from finetune.sharding.weights import is_divided, part_of
from finetune.tokens import TokenizedTexts, tokenize
from ntk_dist.batches import length_buckets


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
    batch_examples: int = 2

    def settings(self) -> tuple[ModelSettings, AdapterSettings, HeadSettings]:
        model = ModelSettings(self.model, dtype=self.dtype)  # type: ignore[arg-type]
        adapter = AdapterSettings(self.adapter, 2, 4.0, self.targets, "random")  # type: ignore[arg-type]
        return model, adapter, HeadSettings(self.head)  # type: ignore[arg-type]

    def options(self) -> dict[str, Any]:
        return {"n_outputs": self.outputs, "adapter_seed": 1, "head_seed": 2}

    def tokens(self) -> TokenizedTexts:
        return tokenize(self.settings()[0], self.texts, template=None, max_length=32)

    def batches(self) -> list[list[int]]:
        lengths = self.tokens().lengths
        buckets = length_buckets(lengths, batch_tokens=10_000, batch_examples=self.batch_examples)
        return [bucket.tolist() for bucket in buckets]


def main() -> None:
    """Capture the case in one file, and leave rows and scores by example beside what this process held."""
    case_path, output = map(Path, sys.argv[1:])
    read = json.loads(case_path.read_text())
    case = Case(**read | {name: tuple(read[name]) for name in ("targets", "texts")})
    torch.set_num_threads(1)
    tokens, found, facts = case.tokens(), dict[str, Tensor](), dict[str, Any]()
    with joined_group() as group:
        sharded = build_sharded_scorer(*case.settings(), **case.options())
        facts["held"] = held(sharded)
        for positions, counts in group.rounds(case.batches()):
            scores, rows = sharded.rows(tokens.batch(positions), lambda logits: logits)
            if counts:
                for place, position in enumerate(positions):
                    found[f"{position}/scores"] = scores[place].contiguous()
                    found |= {f"{position}/{name}": values[place].contiguous() for name, values in rows.items()}
        facts["held_after"] = held(sharded)
        save_file(found, output / f"{group.rank}.safetensors")
        (output / f"{group.rank}.json").write_text(json.dumps(facts | {"pid": os.getpid()}))


def held(sharded: ShardedScorer) -> dict[str, int]:
    """Return the numbers that this process has of the divided weights, and those that there are."""
    divided = [parameter for parameter in sharded.scorer.model.parameters() if is_divided(parameter)]
    own = sum(parameter.numel() + part_of(parameter).numel() for parameter in divided)
    return {"own": own, "all": sum(parameter.ds_numel for parameter in divided)}


if __name__ == "__main__":
    main()
