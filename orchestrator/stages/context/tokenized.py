"""Reading back what the stage `dataset` tokenized."""

import numpy as np

from finetune.data.tokens import TokenizedTexts
from orchestrator.store.artifacts import Artifact


def read_tokens(dataset: Artifact, split: str, start: int, stop: int) -> TokenizedTexts:
    """Return the tokens of examples [start, stop) of a split, `train` or `eval`."""
    offsets = np.array(dataset.array(f"{split}.offsets")[start : stop + 1])
    span = slice(offsets[0], offsets[-1])
    name = f"{split}.token_types"
    return TokenizedTexts(
        ids=np.array(dataset.array(f"{split}.ids")[span]),
        offsets=offsets - offsets[0],
        token_types=np.array(dataset.array(name)[span]) if name in dataset.names() else None,
        pad_id=dataset.facts["pad_id"],
    )
