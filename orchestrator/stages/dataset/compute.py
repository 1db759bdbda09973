"""The stage `dataset`: the examples that a seed draws, tokenized once for all that read them."""

from dataclasses import replace

from finetune.data.repeats import first_places
from finetune.data.sampling import sample
from finetune.data.task import Pool, read_examples
from finetune.data.tokens import tokenize
from finetune.settings import TaskSettings
from orchestrator.stages.context.work import Product, Work
from orchestrator.stages.dataset import DatasetParameters
from orchestrator.store.batched import Array
from orchestrator.store.stage import Stage
from orchestrator.sweep.settings import model_settings


def compute(stage: Stage[DatasetParameters], work: Work) -> Product:
    """Choose and tokenize; for each split: `ids`, `offsets`, `token_types`, `labels`, `rows` and `first_in_train`.

    Tokens of all examples stand one after the other: example i has ids[offsets[i] : offsets[i + 1]]. `token_types` is
    missing for tokenizers that give none; `rows` are the examples' rows in their split of the data; `first_in_train` is
    for each the position of the first training example with its text, or -1.
    """
    p = stage.parameters
    source = work.sweep.sources.data_with(p.task.data)
    settings = replace(p.task, data=source.location, revision=source.revision)
    examples = read_examples(settings, n_outputs=p.classes)
    drawn = sample(
        examples,
        n_train=p.n_train,
        n_eval=p.n_eval,
        seed=p.seed,
        sampling=p.sampling,
    )
    arrays: dict[str, Array] = {}
    pad_id = 0
    trained_on = examples.train.at(drawn.train)
    for split, pool in (("train", trained_on), ("eval", examples.evaluation.at(drawn.evaluation))):
        found, pad_id = _tokenized(work, settings, pool)
        found["first_in_train"] = first_places(trained_on, pool)
        arrays |= {f"{split}.{name}": array for name, array in found.items()}
    return Product({"pad_id": pad_id}, work.write_arrays(stage, arrays))


def _tokenized(work: Work, settings: TaskSettings, pool: Pool) -> tuple[dict[str, Array], int]:
    tokens = tokenize(
        model_settings(work.sweep),
        pool.texts,
        pool.pairs,
        template=settings.template,
        max_length=settings.max_length,
    )
    arrays: dict[str, Array] = {
        "ids": tokens.ids,
        "offsets": tokens.offsets,
        "labels": pool.labels,
        "rows": pool.rows,
    }
    if tokens.token_types is not None:
        arrays["token_types"] = tokens.token_types
    return arrays, tokens.pad_id
