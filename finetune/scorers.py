"""The choice between the two classes of scorers: one process has the model, or the processes of a group share it."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from finetune.model.adapted import ScorerSettings
from finetune.model.scorer import Scorer, unsharded_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings, ShardingSettings
from finetune.zero.scorer import sharded_scorer


def build_scorer(
    model: ModelSettings,
    adapter: AdapterSettings,
    head: HeadSettings,
    *,
    n_outputs: int,
    adapter_seed: int,
    head_seed: int,
    head_weights: Mapping[str, NDArray[np.floating]] | None = None,
    groups: Sequence[str] | None = None,
    sharding: ShardingSettings | None = None,
) -> Scorer:
    """Load a model, give it adapter and head, and return it as a function to logits and Jacobian rows.

    Args:
        model: the pretrained model.
        adapter: what is adapted.
        head: what gives the outputs.
        n_outputs: see `ScorerSettings`, as the four that follow.
        adapter_seed: see there.
        head_seed: see there.
        head_weights: see there.
        groups: see there.
        sharding: how the processes of a group hold the model, where they do: all of them make the call, after
            `finetune.parallel.processes.in_a_group` or another of the functions there; None for one process.

    Raises:
        FinetuneError: a named subclass says whether model, head, target or group is wrong.
        NonFiniteError: a weight of the checkpoint is NaN or infinite.
        TiedWeightsError: a parameter belongs to two groups, or to a module outside of them, too.
        NotRecordedError: as `ntk_dist.jacobian.tracked.check_products`.
    """
    settings = ScorerSettings(model, adapter, head, n_outputs, adapter_seed, head_seed, head_weights, groups)
    if sharding is None or not sharding.shards_weights:
        return unsharded_scorer(settings)
    return sharded_scorer(settings, sharding.offload)
