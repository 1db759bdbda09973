"""The survey of a variant: computed once from model and data, kept in the results folder and the user's cache."""

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from orchestrator.errors import DamagedArtifactError, ResultsError, SourceError
from orchestrator.identity import identity
from orchestrator.loading import load_model_libraries, no_garbage
from orchestrator.spec import Spec
from orchestrator.store.artifacts import ArtifactStore
from orchestrator.store.stage import Stage
from orchestrator.store.survey_kind import SURVEY, SurveyParameters
from orchestrator.store.user_cache import code_here, recall, remember
from orchestrator.sweep.choices import Choice, variants
from orchestrator.sweep.folder import Sweep
from orchestrator.sweep.layer_sets import GroupFacts
from orchestrator.sweep.settings import adapter_settings, head_settings, model_settings, task_settings
from orchestrator.sweep.survey_facts import MOST, Architecture, Survey
from orchestrator.sweep.versions import versions

if TYPE_CHECKING:
    from finetune.data.task import Examples
    from finetune.data.tokens import TokenizedTexts
    from finetune.model.inspection import ModelFacts

logger = logging.getLogger(__name__)

SURVEYED_TEXTS = 1000
"""Texts that are tokenized to estimate the mean number of tokens."""


def surveys(sweep: Sweep, store: ArtifactStore) -> list[Survey]:
    """Return the survey of each variant of a sweep, from `store` or the user's cache where it is there.

    Nothing is written but that cache.

    Raises:
        SourceError: the model or the data cannot be used; the message names the module, the example or the column.
    """
    found: dict[str, Survey] = {}
    for choice, variant in variants(sweep):
        stage_id = survey_stage(variant).stage_id
        if stage_id not in found:
            found[stage_id] = _survey(variant, choice, store)
    return [found[survey_stage(variant).stage_id] for _, variant in variants(sweep)]


def _survey(variant: Sweep, choice: Choice, store: ArtifactStore) -> Survey:
    began = time.perf_counter()
    kept = _kept(variant, store)
    recalled = _recalled(variant) if kept is None else None
    found = kept or recalled or _look_and_remember(variant, choice)
    origin = "the results folder" if kept else "the user's cache" if recalled else "the model and its data"
    logger.info("survey of model and data from %s in %.2f s", origin, time.perf_counter() - began)
    return found


def kept_surveys(sweep: Sweep, store: ArtifactStore) -> list[Survey]:
    """Return the survey of each variant of a sweep as it is kept in `store`, without reading model or data.

    Raises:
        ResultsError: one is not there, or is damaged.
    """
    found = [(_kept(variant, store), survey_stage(variant)) for _, variant in variants(sweep)]
    for survey, stage in found:
        if survey is None:
            path = store.record_path(stage.kind, stage.stage_id)
            raise ResultsError(
                f"the survey of model and data, from which the sweep is planned, is not at {path}, or is damaged; "
                "commands that only read load no model: `ntksweep run SPEC` reads both again and keeps the survey"
            )
    return [survey for survey, _ in found if survey is not None]


def all_kept(sweep: Sweep, store: ArtifactStore) -> bool:
    """Tell whether `store` keeps the survey of every variant of a sweep, undamaged."""
    return all(_kept(variant, store) is not None for _, variant in variants(sweep))


def keep_surveys(sweep: Sweep, found: Sequence[Survey], store: ArtifactStore) -> None:
    """Keep the survey of each variant of a sweep in `store`, so that later commands start at once.

    Raises:
        StorageError: the store cannot be written.
    """
    for (_, variant), survey in zip(variants(sweep), found, strict=True):
        if _kept(variant, store) is None:
            stage = survey_stage(variant)
            if store.has(stage.kind, stage.stage_id):
                store.set_aside(stage.kind, stage.stage_id)
            store.publish(stage, survey.to_json(), {})


def _kept(variant: Sweep, store: ArtifactStore) -> Survey | None:
    stage = survey_stage(variant)
    try:
        return Survey.from_json(store.open(stage.kind, stage.stage_id).facts)
    except (DamagedArtifactError, KeyError, TypeError, ValueError):  # written by another version, or by hand
        return None


def _recalled(variant: Sweep) -> Survey | None:
    if variant.spec.model.trust_remote_code:
        return None  # a model's code may be another one's, which no fingerprint here is of
    try:
        return Survey.from_json(recall(_CACHE, _cache_key(variant)))
    except (KeyError, TypeError, ValueError):
        return None


def _look_and_remember(variant: Sweep, choice: Choice) -> Survey:
    found = _look(variant, choice)
    # never what a results folder keeps, which may come from somebody else
    if not variant.spec.model.trust_remote_code:
        remember(_CACHE, _cache_key(variant), found.to_json())
    return found


_CACHE = "surveys"


def _cache_key(variant: Sweep) -> str:
    """Return the key that fixes a survey: model, data, their settings, and all code that inspects them."""
    spec = variant.spec
    compute = [spec.compute.device, spec.compute.checkpointing, spec.compute.batching]
    used = [survey_stage(variant).stage_id, *compute, _batch_tokens(spec), _shares_batches(spec)]
    return identity([used, versions(), code_here("finetune", "ntk_dist", "orchestrator")])


def survey_stage(variant: Sweep) -> Stage:
    """Return the stage whose artifact keeps the survey of a variant."""
    spec = variant.spec.model_dump(mode="json")
    parts = {part: spec[part] for part in ("model", "task", "adapter", "head")}
    parts["model"] |= {"path": variant.sources.model.content_id}
    parts["task"] |= {"data": variant.sources.data.content_id}
    return Stage(SURVEY, SurveyParameters(identity(parts)))


def _batch_tokens(spec: Spec) -> int | None:
    """Return the tokens of a batch, 1 if every example goes alone; None if the number is found by measurement."""
    tokens = 1 if spec.compute.batching == "alone" else spec.compute.batch_tokens
    return None if tokens == "auto" else tokens


def _shares_batches(spec: Spec) -> bool:
    """Tell from the spec whether examples share batches; a batch has a quarter of a shard's examples."""
    shard = spec.compute.shard_examples
    return spec.compute.batching == "together" and (shard is None or shard // 4 > 1 or spec.finetune is not None)


def _look(sweep: Sweep, choice: Choice) -> Survey:
    load_model_libraries()
    from finetune.data.repeats import count_repeats, count_shared
    from finetune.errors import FinetuneError
    from ntk_dist.errors import NtkError

    try:
        examples, facts, tokens = _tried(sweep)
    except (FinetuneError, NtkError) as error:
        said = f"{choice}: {error}" if choice.task else str(error)
        key = error.setting if isinstance(error, FinetuneError) else ""
        raise SourceError(said, key=key, task=choice.task) from error
    model_facts = asdict(facts)
    groups = tuple(GroupFacts(**group) for group in model_facts.pop("groups"))
    return Survey(
        groups=groups,
        n_outputs=examples.n_outputs,
        model=Architecture(**model_facts),
        pool_train=len(examples.train),
        pool_eval=len(examples.evaluation),
        shared_pool=examples.held_out,
        mean_tokens=float(tokens.lengths.mean()),
        class_sizes=examples.class_sizes,
        evaluation_sizes=examples.evaluation_sizes,
        labels=examples.labels,
        repeats_train=count_repeats(examples.train),
        repeats_eval=0 if examples.held_out else count_repeats(examples.evaluation),
        shared_texts=0 if examples.held_out else count_shared(examples.train, examples.evaluation),
        left_out=examples.left_out,
        # what a tokenizer says that knows no limit is larger than any
        room=tokens.room if tokens.room is not None and tokens.room < MOST else None,
    )


def _tried(sweep: Sweep) -> tuple["Examples", "ModelFacts", "TokenizedTexts"]:
    """Return the examples, facts about the model, and some tokenized texts, with which the model was tried.

    Raises:
        FinetuneError, NtkError: model and data cannot be used, alone or together.
    """
    from finetune.data.task import read_examples
    from finetune.data.tokens import tokenize
    from finetune.model.class_order import check_class_order
    from finetune.model.dry_run import dry_run
    from finetune.model.inspection import inspect_model
    from finetune.model.label_words import check_label_words
    from orchestrator.sweep.resources import limited_threads

    spec, task = sweep.spec, sweep.spec.task
    model, adapter, head = model_settings(sweep), adapter_settings(spec.adapter), head_settings(spec.head)
    examples = read_examples(
        task_settings(task, sweep.sources.data.location, sweep.sources.data.revision), n_outputs=task.classes
    )
    n_outputs = examples.n_outputs
    with no_garbage():  # a model without weights, but of many objects
        facts = inspect_model(model, adapter, head, n_outputs=n_outputs)
    check_class_order(model, head, examples.class_names, n_outputs=n_outputs)
    check_label_words(model, head, task.template, n_outputs=n_outputs)
    tokens = tokenize(
        model,
        examples.train.texts[:SURVEYED_TEXTS],
        examples.train.pairs and examples.train.pairs[:SURVEYED_TEXTS],
        template=task.template,
        max_length=task.max_length,
    )
    with limited_threads(1):  # two texts: several threads would spend their time on waiting for one another
        dry_run(
            model,
            adapter,
            head,
            tokens,
            n_outputs=n_outputs,
            batch_tokens=_batch_tokens(spec),
            together=_shares_batches(spec),
        )
    return examples, facts, tokens
