"""The survey: what must be known of the model and the data before a plan can be made, computed once and kept."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.errors import DamagedArtifactError, SourceError
from orchestrator.folder import Sweep
from orchestrator.identity import identity
from orchestrator.layer_sets import GroupFacts
from orchestrator.settings import adapter_settings, head_settings, model_settings, task_settings
from orchestrator.stage import Stage
from orchestrator.store.artifacts import ArtifactStore

SURVEYED_TEXTS = 1000
"""Texts that are tokenized to estimate the mean number of tokens."""


@dataclass(frozen=True)
class Survey:
    """Facts about the model and the data of a sweep.

    Attributes:
        groups: every group of the model, in the model's order, the head included.
        n_outputs: outputs C of the model: classes, or 1 for regression.
        model: architecture facts: model_type, n_layers, hidden_size, n_parameters, weight_bytes, is_decoder.
        pool_train: examples that training examples can be drawn from.
        pool_eval: examples that evaluation examples can be drawn from; with no split of their own, the same ones.
        shared_pool: whether train and evaluation examples are drawn from one split.
        mean_tokens: mean tokens of an example, special tokens included, estimated on a part of the data.
        class_sizes: training examples there are of each class; empty for regression.
    """

    groups: tuple[GroupFacts, ...]
    n_outputs: int
    model: Mapping[str, Any]
    pool_train: int
    pool_eval: int
    shared_pool: bool
    mean_tokens: float
    class_sizes: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the survey as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Survey":
        """Return the survey that `to_json` wrote."""
        groups = tuple(GroupFacts(**{**group, "zero_parts": tuple(group["zero_parts"])}) for group in data["groups"])
        sizes = tuple(data.get("class_sizes", ()))
        return cls(**{**data, "groups": groups, "class_sizes": sizes})


def survey(sweep: Sweep, store: ArtifactStore) -> Survey:
    """Return the survey of a sweep, from `store` if it is kept there; writes nothing.

    Raises:
        SourceError: the model or the data cannot be used; the message names the module, the example or the column.
    """
    return kept_survey(sweep, store) or _look(sweep)


def kept_survey(sweep: Sweep, store: ArtifactStore) -> Survey | None:
    """Return the survey of a sweep that is kept in `store`; None if there is none, or a damaged one."""
    stage = survey_stage(sweep)
    try:
        return Survey.from_json(store.open(stage.kind, stage.stage_id).facts)
    except DamagedArtifactError:
        return None


def keep_survey(sweep: Sweep, found: Survey, store: ArtifactStore) -> None:
    """Keep a survey in `store`, so that later commands start at once.

    Raises:
        StorageError: the store cannot be written.
    """
    if kept_survey(sweep, store) is None:
        stage = survey_stage(sweep)
        if store.has(stage.kind, stage.stage_id):
            store.set_aside(stage.kind, stage.stage_id)
        store.publish(stage, found.to_json(), {})


def survey_stage(sweep: Sweep) -> Stage:
    """Return the stage whose artifact keeps the survey of a sweep."""
    spec = sweep.spec.model_dump(mode="json")
    parts = {part: spec[part] for part in ("model", "task", "adapter", "head")}
    parts["model"] |= {"path": sweep.sources.model.content_id}
    parts["task"] |= {"data": sweep.sources.data.content_id}
    return Stage("survey", {"of": identity(parts)})


def _look(sweep: Sweep) -> Survey:
    from finetune.errors import FinetuneError
    from finetune.inspection import inspect_model
    from finetune.label_words import check_label_words
    from finetune.task import read_examples
    from finetune.tokens import tokenize
    from ntk_dist.errors import NtkError

    model = model_settings(sweep)
    task = sweep.spec.task
    try:
        examples = read_examples(task_settings(sweep), n_outputs=task.classes)
        facts = inspect_model(model, adapter_settings(sweep), head_settings(sweep), n_outputs=examples.n_outputs)
        check_label_words(model, head_settings(sweep), task.template, n_outputs=examples.n_outputs)
        tokens = tokenize(
            model,
            examples.train.texts[:SURVEYED_TEXTS],
            examples.train.pairs and examples.train.pairs[:SURVEYED_TEXTS],
            template=task.template,
            max_length=task.max_length,
        )
    except (FinetuneError, NtkError) as error:
        raise SourceError(str(error)) from error
    model_facts = asdict(facts)
    groups = tuple(
        GroupFacts(group["name"], group["layer"], group["target"], group["n_parameters"], tuple(group["zero_parts"]))
        for group in model_facts.pop("groups")
    )
    return Survey(
        groups=groups,
        n_outputs=examples.n_outputs,
        model=model_facts,
        pool_train=len(examples.train),
        pool_eval=len(examples.evaluation),
        shared_pool=examples.held_out,
        mean_tokens=float(tokens.lengths.mean()),
        class_sizes=examples.class_sizes,
    )
