"""State that a worker process keeps from stage to stage: the sweep, its store, the loaded model, its part of a GPU."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.stages.base.parameters import ScorerParameters
from orchestrator.store.artifacts import Artifact
from orchestrator.store.stage import StageKind
from orchestrator.sweep.folder import ResultsFolder, Sweep
from orchestrator.sweep.gpu_kind import gpu_of, refuse_other_gpu
from orchestrator.sweep.settings import model_settings

if TYPE_CHECKING:
    import torch

    from finetune.model.scorer import Scorer
    from finetune.parallel.process_group import ProcessGroup
    from finetune.settings import ShardingSettings

logger = logging.getLogger(__name__)


class ModelCache:
    """The model that a worker has loaded, one at a time.

    Args:
        sweep: the sweep whose model it is.
    """

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self._loaded: tuple[tuple[Any, ...], Scorer] | None = None

    def scorer(
        self, parameters: ScorerParameters, head: Artifact | None, groups: Sequence[str], process_group: "ProcessGroup"
    ) -> "Scorer":
        """Return the model with its adapter and head, loaded once for consecutive stages that take the same.

        Args:
            parameters: everything that fixes its numbers.
            head: artifact of a fitted head; None for the other kinds of head.
            groups: names of the groups to track; the head may be trained although it is not in the kernel.
            process_group: processes that compute the stage together.
        """
        p = parameters
        weights_of = (p.model, p.adapter, p.adapter_seed, p.head, p.head_seed, p.n_outputs, p.dtype)
        weights = {name: np.array(head.array(name)) for name in ("weight", "bias")} if head else None
        key = (*weights_of, tuple(groups), weights and weights["weight"].tobytes())
        if self._loaded is None or self._loaded[0] != key:
            self.forget()  # free the old model before the new one is loaded
            began = time.perf_counter()
            scorer = self._load(parameters, weights, groups, process_group)
            self._loaded = (key, scorer)
            logger.info(
                "model with %d groups in %s on %s, loaded in %.2f s",
                len(groups), p.dtype, scorer.device, time.perf_counter() - began,
            )  # fmt: skip
        return self._loaded[1]

    def _load(
        self,
        parameters: ScorerParameters,
        head_weights: Mapping[str, Any] | None,
        groups: Sequence[str],
        process_group: "ProcessGroup",
    ) -> "Scorer":
        from finetune.model.architecture import HEAD_GROUP
        from finetune.scorers import build_scorer

        return build_scorer(
            replace(model_settings(self._sweep), dtype=parameters.dtype),
            parameters.adapter,
            replace(parameters.head, in_kernel=HEAD_GROUP in groups),
            n_outputs=parameters.n_outputs,
            adapter_seed=parameters.adapter_seed,
            head_seed=parameters.head_seed,
            head_weights=head_weights,
            groups=list(groups),
            sharding=self._sharding(parameters, process_group),
        )

    def _sharding(self, parameters: ScorerParameters, process_group: "ProcessGroup") -> "ShardingSettings | None":
        """Return how the processes of a group hold the model; None where one process computes alone."""
        if parameters.sharding is None or (process_group.size == 1 and not self._sweep.spec.is_sharded):
            return None
        from finetune.parallel.processes import in_a_group

        in_a_group()
        return parameters.sharding

    def forget(self) -> None:
        """Drop the loaded model; its memory is free at once unless the current stage still holds it."""
        if self._loaded is None:
            return
        dropped = type(self._loaded[1])
        self._loaded = None
        dropped.free_dropped()


class WorkerState:
    """The objects that a worker process keeps from stage to stage.

    Args:
        sweep: the sweep.
        folder: its results folder.
        on_a_gpu: how many workers share the GPU of this one, each with an equal part of its memory.

    Attributes:
        sweep: the sweep that is worked on.
        folder: its results folder.
        store: its artifacts.
        models: the loaded model.
    """

    def __init__(self, sweep: Sweep, folder: ResultsFolder, on_a_gpu: int = 1) -> None:
        self.sweep = sweep
        self.folder = folder
        self.store = folder.artifacts()
        self.models = ModelCache(sweep)
        self._on_a_gpu = on_a_gpu
        self._knows_gpu = False
        self._kind: StageKind | None = None
        self._shared: dict[Callable[[], Any], Any] = {}

    def shared(self, kind: StageKind | None) -> dict[Callable[[], Any], Any]:
        """Return the objects that consecutive stages of one kind share; those of another kind are forgotten."""
        if self._kind != kind:
            self._kind, self._shared = kind, {}
        return self._shared

    def use_device(self, name: str) -> "torch.device":
        """Return a torch device, of which the worker takes its part.

        Raises:
            NoDeviceError: there is none.
            LostDeviceError: it is broken.
            OtherGpuError: the numbers of the sweep come from another kind of GPU.
        """
        from ntk_dist.device.share import take_part
        from ntk_dist.device.transfers import present_device

        device = present_device(name)
        if not self._knows_gpu:
            take_part(device, self._on_a_gpu)
            if device.type == "cuda" and self.sweep.spec.compute.deterministic:
                refuse_other_gpu(self.folder, gpu_of(device))
            self._knows_gpu = device.type != "cpu"
        return device
