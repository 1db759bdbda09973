"""The stage `dataset`: the examples that a seed draws, tokenized once for all that read them."""

import numpy as np
from numpy.typing import NDArray

from finetune.sampling import sample
from finetune.settings import TaskSettings
from finetune.task import Pool, read_examples
from finetune.tokens import tokenize
from orchestrator.settings import model_settings, task_settings
from orchestrator.stage import Stage
from orchestrator.stages.work import Product, Work
from orchestrator.store.arrays import Array


def compute(stage: Stage, work: Work) -> Product:
    """Choose and tokenize; for each split the artifact holds `ids`, `offsets`, `token_types`, `labels` and `rows`.

    Tokens of all examples stand one after the other: example i has ids[offsets[i] : offsets[i + 1]]. `token_types` is
    missing for tokenizers that give none; `rows` are the examples' rows in their split of the data.
    """
    p = stage.parameters
    task = p["task"]
    settings = task_settings(task, work.sweep.sources.data_with(p["data"]))
    examples = read_examples(settings, n_outputs=task["classes"])
    drawn = sample(
        examples,
        n_train=p["n_train"],
        n_eval=task["n_eval"],
        seed=p["seed"],
        sampling=task.get("sampling", "random"),
    )
    arrays: dict[str, Array] = {}
    pad_id = 0
    for split, pool, positions in (
        ("train", examples.train, drawn.train),
        ("eval", examples.evaluation, drawn.evaluation),
    ):
        found, pad_id = _tokenized(work, settings, pool, positions)
        arrays |= {f"{split}.{name}": array for name, array in found.items()}
    return Product({"pad_id": pad_id}, work.write_arrays(stage, arrays))


def _tokenized(
    work: Work, settings: TaskSettings, pool: Pool, positions: NDArray[np.int64]
) -> tuple[dict[str, Array], int]:
    tokens = tokenize(
        model_settings(work.sweep),
        [pool.texts[i] for i in positions],
        pool.pairs and [pool.pairs[i] for i in positions],
        template=settings.template,
        max_length=settings.max_length,
    )
    arrays: dict[str, Array] = {
        "ids": tokens.ids,
        "offsets": tokens.offsets,
        "labels": pool.labels[positions],
        "rows": pool.rows[positions],
    }
    if tokens.token_types is not None:
        arrays["token_types"] = tokens.token_types
    return arrays, tokens.pad_id
