"""Work of the processes of a group in tests of random weights."""

from collections.abc import Sequence

import torch
from torch import Tensor

from finetune.model.loading import load_model
from finetune.parallel.processes import joined_group
from finetune.parallel.weights import is_sharded, loaded_sharded, local_part
from finetune.settings import ModelSettings


def draw(models: Sequence[ModelSettings]) -> list[dict[str, Tensor]]:
    """Return all weights and buffers that the models have together, and how many numbers this process had of each."""
    import deepspeed

    torch.set_num_threads(1)
    found = []
    with joined_group():
        for settings in models:
            with loaded_sharded(settings.dtype):
                model = load_model(settings, n_outputs=2, language_model=False, seed=0).model
            values = dict(model.named_buffers())
            for name, parameter in model.named_parameters():
                assert is_sharded(parameter)
                assert local_part(parameter).numel() <= parameter.ds_numel / 2 + 1
                assert parameter.numel() == 0
                with deepspeed.zero.GatheredParameters([parameter]):
                    values[name] = parameter.detach().clone()
            found.append(values)
    return found
