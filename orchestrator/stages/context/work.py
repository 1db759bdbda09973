"""State of a worker process while it computes stages: the sweep, the store, and the loaded model."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from finetune.parallel.process_group import ProcessGroup
from orchestrator.identity import identity
from orchestrator.store.arrays import ArrayFile, Layout
from orchestrator.store.artifacts import Artifact, layout_of
from orchestrator.store.batched import Array, BatchedLayout
from orchestrator.store.checkpoints import FileCheckpoint
from orchestrator.store.stage import Stage, StageKind
from orchestrator.sweep.cards import card_of, refuse_other_card
from orchestrator.sweep.folder import ResultsFolder, Sweep
from orchestrator.sweep.settings import adapter_settings, head_settings, model_settings

if TYPE_CHECKING:
    import torch

    from finetune.model.scorer import Scorer
    from finetune.settings import ShardingSettings
    from finetune.training.run import Checkpoint

logger = logging.getLogger(__name__)


T = TypeVar("T")


@dataclass(frozen=True)
class Product:
    """Results of a stage: facts as JSON, and arrays or none."""

    facts: Mapping[str, Any]
    arrays: ArrayFile | None = None


class Work:
    """The state of a worker process; one model is loaded at a time.

    Args:
        sweep: the sweep.
        folder: its results folder.
        on_a_gpu: how many workers share the GPU of this one, each with an equal part of its memory.

    Attributes:
        sweep: the sweep that is worked on.
        folder: its results folder.
        store: its artifacts.
        halvings: how often the batches of the current stage are to be halved, after it ran out of memory.
        group: the processes that compute the current stage together; all of them do the same, each for its share of
            the examples, and the results of the first one are published.
        device: name of the processor or GPU that computes the current stage, for provenance.
    """

    def __init__(self, sweep: Sweep, folder: ResultsFolder, on_a_gpu: int = 1) -> None:
        self.sweep = sweep
        self._on_a_gpu = on_a_gpu
        self._knows_gpu = False
        self.folder = folder
        self.store = folder.artifacts()
        self.halvings = 0
        self.group = ProcessGroup()
        self.device = "cpu"
        self._kind: StageKind | None = None
        self._shared: dict[Callable[[], Any], Any] = {}
        self._unpublished: list[ArrayFile] = []
        self._checkpoints: list[FileCheckpoint] = []
        self._loaded: tuple[str, Scorer] | None = None

    def begin(self, stage: Stage, halvings: int) -> None:
        """Begin a stage whose batches are halved `halvings` times; forget what stages of another kind shared."""
        self.halvings = halvings
        self.device = "cpu"
        if self._kind != stage.of:
            self._kind, self._shared = stage.of, {}

    def shared(self, make: Callable[[], T]) -> T:
        """Return an object that consecutive stages of one kind share; the first one creates it.

        It may save time, but must not change results: another or a restarted worker computes the stage without it.
        """
        if make not in self._shared:
            self._shared[make] = make()
        found: T = self._shared[make]
        return found

    def input(self, stage: Stage, role: str) -> Artifact:
        """Return the artifact of the one input that a stage has in `role`."""
        (reference,) = stage.inputs[role]
        return self.store.open(*reference)

    def inputs(self, stage: Stage, role: str) -> list[Artifact]:
        """Return the artifacts of all inputs that a stage has in `role`."""
        return [self.store.open(*reference) for reference in stage.inputs[role]]

    def halved(self, size: int) -> int:
        """Return a size of batches or blocks, halved as often as the current stage asks for; at least 1."""
        return max(1, size >> self.halvings)

    def batch_tokens(self, stage: Stage, scorer: Mapping[str, Any]) -> int:
        """Return the most tokens of a batch of the current stage: the spec's number, or the one that was found to fit.

        Args:
            stage: the stage, with the input `batches` where the spec says `auto`.
            scorer: the parameters of its model.
        """
        given = scorer["batch_tokens"]
        tokens = self.halved(self.input(stage, "batches").facts["batch_tokens"] if given == "auto" else given)
        logger.debug("batches of at most %d tokens (the spec says %s)", tokens, given)
        return tokens

    def use_device(self, name: str) -> "torch.device":
        """Return the torch device that computes the current stage, and record its name.

        Raises:
            NoDeviceError: there is none.
            LostDeviceError: it is broken.
            OtherGpuError: the numbers of the sweep come from another kind of GPU.
        """
        import torch

        from ntk_dist.device.share import take_part
        from ntk_dist.device.transfers import present_device

        device = present_device(name)
        if not self._knows_gpu:
            take_part(device, self._on_a_gpu)
            if device.type == "cuda" and self.sweep.spec.compute.deterministic:
                refuse_other_card(self.folder, card_of(device))
            self._knows_gpu = device.type != "cpu"
        self.device = device.type if device.type == "cpu" else torch.get_device_module(device).get_device_name(device)
        return device

    def halvings_of(self, stage: Stage) -> dict[str, int]:
        """Return how often batches were halved, for provenance: in the stage, and at most in it or its inputs."""
        below = [int(self.store.open(*needed).provenance.get("most_halvings", 0)) for needed in stage.needs()]
        return {"halvings": self.halvings, "most_halvings": max([self.halvings, *below])}

    def new_arrays(self, stage: Stage, layout: Layout, batched: BatchedLayout | None = None) -> ArrayFile:
        """Create the array file of a stage, which `discard` removes unless the stage is published.

        In a group the first process creates it, and the others write to the same.
        """
        if self.group.leads:
            file = self.store.new_arrays(stage, layout, batched)
            self.group.agreed(str(file.path))
        else:
            file = ArrayFile(Path(self.group.agreed()), layout, batched, new=False)
        self._unpublished.append(file)
        return file

    def write_arrays(self, stage: Stage, arrays: Mapping[str, Array]) -> ArrayFile:
        """Create the array file of a stage from arrays in memory."""
        whole = {name: np.atleast_1d(array) for name, array in arrays.items()}
        file = self.new_arrays(stage, layout_of(whole))
        if self.group.leads:
            file.write(whole)
        return file

    def checkpoint(self, stage: Stage) -> "Checkpoint":
        """Return the checkpoint of a stage; it is removed once the stage is published.

        In a group the first process keeps it for all, and decides when to save.
        """
        checkpoint = FileCheckpoint(self.folder.checkpoints / f"{stage.stage_id}.safetensors")
        self._checkpoints.append(checkpoint)
        if self.group.size == 1:
            return checkpoint
        from finetune.training.group_checkpoint import GroupCheckpoint

        return GroupCheckpoint(self.group, checkpoint)

    def met(self, peak_memory: int) -> int:
        """Wait until every process of the group has written its share; return the largest of their peaks of memory."""
        if self.group.size == 1:
            return peak_memory
        if not self.group.leads:
            for file in self._unpublished:
                file.flush()
        found = self.group.gathered((peak_memory, [file.written for file in self._unpublished]))
        for _, written in found:
            for file, parts in zip(self._unpublished, written, strict=True):
                file.also_written(parts)
        return max(int(peak) for peak, _ in found)

    def published(self) -> None:
        """Remove the checkpoints of the current stage, which is finished."""
        for checkpoint in self._checkpoints:
            checkpoint.remove()

    def discard(self) -> None:
        """Remove files that stages left unpublished."""
        while self._unpublished:
            self._unpublished.pop().discard()
        self._checkpoints.clear()

    def scorer(self, parameters: Mapping[str, Any], head: Artifact | None, groups: list[str]) -> "Scorer":
        """Return the model with its adapter and head, loaded once for all shards of a seed.

        Args:
            parameters: parameters of a capture or head stage.
            head: artifact of a fitted head; None for the other kinds of head.
            groups: names of the groups to track; the head may be trained although it is not in the kernel.
        """
        names = ("model", "adapter", "adapter_seed", "head", "head_seed", "n_outputs", "dtype")
        weights = {name: np.array(head.array(name)) for name in ("weight", "bias")} if head else None
        key = identity([{name: parameters[name] for name in names}, groups, weights and weights["weight"].tolist()])
        if self._loaded is None or self._loaded[0] != key:
            self.forget_scorer()  # free the old model before the new one is loaded
            self.use_device(self.sweep.spec.compute.device)
            began = time.perf_counter()
            self._loaded = (key, self._load(parameters, weights, groups))
            logger.info(
                "model with %d groups in %s on %s, loaded in %.2f s",
                len(groups), parameters["dtype"], self.device, time.perf_counter() - began,
            )  # fmt: skip
        self.use_device(self.sweep.spec.compute.device)
        return self._loaded[1]

    def _load(
        self, parameters: Mapping[str, Any], head_weights: Mapping[str, Array] | None, groups: list[str]
    ) -> "Scorer":
        from finetune.model.architecture import HEAD_GROUP
        from finetune.scorers import build_scorer

        head = replace(head_settings(parameters["head"]), in_kernel=HEAD_GROUP in groups)
        model = replace(model_settings(self.sweep), dtype=parameters["dtype"])
        adapter = adapter_settings(parameters["adapter"])
        return build_scorer(
            model,
            adapter,
            head,
            n_outputs=parameters["n_outputs"],
            adapter_seed=parameters["adapter_seed"],
            head_seed=parameters["head_seed"],
            head_weights=head_weights,
            groups=groups,
            sharding=self._sharding(),
        )

    def _sharding(self) -> "ShardingSettings | None":
        """Return how the processes of the group hold the model; None where one process computes alone."""
        sharding = self.sweep.spec.sharding
        if sharding is None or (self.group.size == 1 and not self.sweep.spec.is_divided):
            return None
        from finetune.parallel.processes import in_a_group
        from finetune.settings import ShardingSettings

        in_a_group()
        return ShardingSettings(**sharding.model_dump(mode="json"))

    def forget_scorer(self) -> None:
        """Drop the loaded model; its memory is free at once unless the current stage still holds it."""
        if self._loaded is None:
            return
        dropped = type(self._loaded[1])
        self._loaded = None
        dropped.free_dropped()
