"""An attempt at a stage, as `compute` sees it: inputs, device, model, and the files that it leaves."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from finetune.parallel.process_group import ProcessGroup
from orchestrator.stages.base.parameters import ScorerParameters
from orchestrator.stages.context.worker_state import WorkerState
from orchestrator.store.arrays import ArrayFile, Layout
from orchestrator.store.artifacts import Artifact, layout_of
from orchestrator.store.batched import Array, BatchedLayout
from orchestrator.store.checkpoints import FileCheckpoint
from orchestrator.store.stage import Reads, Stage, StageKind

if TYPE_CHECKING:
    import torch

    from finetune.model.scorer import Scorer
    from finetune.training.checkpoint import Checkpoint

logger = logging.getLogger(__name__)


T = TypeVar("T")


@dataclass(frozen=True)
class Product:
    """Results of a stage: facts as JSON, and arrays or none."""

    facts: Mapping[str, Any]
    arrays: ArrayFile | None = None


class Work:
    """One attempt at a stage: its inputs, its device, and the files that it leaves if it succeeds.

    Args:
        state: what the worker keeps from stage to stage.
        kind: kind of the stage; consecutive stages of one kind share objects.
        halvings: how often its batches are to be halved, after it ran out of memory.
        process_group: the processes that compute it together; all do the same, each for its share of the examples, and
            the results of the first one are published.
        ahead: stages of the kind that this worker has claimed and computes next.

    Attributes:
        sweep: the sweep that is worked on.
        folder: its results folder.
        store: its artifacts.
        halvings: as given.
        process_group: as given.
        ahead: as given; some of their work may be done with that of the current stage, and kept in `shared`.
        device: name of the processor or GPU that computes the stage, for provenance.
    """

    def __init__(
        self,
        state: WorkerState,
        kind: StageKind | None = None,
        halvings: int = 0,
        process_group: ProcessGroup | None = None,
        ahead: Sequence[Stage] = (),
    ) -> None:
        self.sweep, self.folder, self.store = state.sweep, state.folder, state.store
        self.halvings = halvings
        self.ahead = ahead
        self.process_group = process_group or ProcessGroup()
        self.device = "cpu"
        self._state = state
        self._shared = state.shared(kind)
        self._unpublished: list[ArrayFile] = []
        self._checkpoints: list[FileCheckpoint] = []

    def shared(self, make: Callable[[], T]) -> T:
        """Return an object that consecutive stages of one kind share; the first one creates it.

        It may save time, but must not change results: another or a restarted worker computes the stage without it.
        """
        if make not in self._shared:
            self._shared[make] = make()
        found: T = self._shared[make]
        return found

    def input(self, stage: Reads, role: str) -> Artifact:
        """Return the artifact of the one input that a stage has in `role`."""
        (reference,) = stage.inputs[role]
        return self.store.open(*reference)

    def inputs(self, stage: Reads, role: str) -> list[Artifact]:
        """Return the artifacts of all inputs that a stage has in `role`."""
        return [self.store.open(*reference) for reference in stage.inputs[role]]

    def halved(self, size: int) -> int:
        """Return a size of batches or blocks, halved as often as the current stage asks for; at least 1."""
        return max(1, size >> self.halvings)

    def batch_tokens(self, stage: Reads, scorer: ScorerParameters) -> int:
        """Return the most tokens of a batch of the current stage: the spec's number, or the one that was found to fit.

        Args:
            stage: the stage, with the input `batches` where the spec says `auto`.
            scorer: the parameters of its model.
        """
        given = scorer.batch_tokens
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

        device = self._state.use_device(name)
        self.device = device.type if device.type == "cpu" else torch.get_device_module(device).get_device_name(device)
        return device

    def halvings_of(self, stage: Stage) -> dict[str, int]:
        """Return how often batches were halved, for provenance: in the stage, and at most in it or its inputs."""
        below = [int(self.store.open(*needed).provenance.get("most_halvings", 0)) for needed in stage.needs()]
        return {"halvings": self.halvings, "most_halvings": max([self.halvings, *below])}

    def new_arrays(self, stage: Stage, layout: Layout, batched: BatchedLayout | None = None) -> ArrayFile:
        """Create the array file of a stage, which `discard` removes unless the stage is published.

        In a process group the first process creates it, and the others write to the same.
        """
        if self.process_group.leads:
            file = self.store.new_arrays(stage, layout, batched)
            self.process_group.agreed(str(file.path))
        else:
            file = ArrayFile(Path(self.process_group.agreed()), layout, batched, new=False)
        self._unpublished.append(file)
        return file

    def write_arrays(self, stage: Stage, arrays: Mapping[str, Array]) -> ArrayFile:
        """Create the array file of a stage from arrays in memory."""
        whole = {name: np.atleast_1d(array) for name, array in arrays.items()}
        file = self.new_arrays(stage, layout_of(whole))
        if self.process_group.leads:
            file.write(whole)
        return file

    def checkpoint(self, stage: Stage) -> "Checkpoint":
        """Return the checkpoint of a stage; it is removed once the stage is published.

        In a process group the first process keeps it for all, and decides when to save.
        """
        checkpoint = FileCheckpoint(self.folder.checkpoints / f"{stage.stage_id}.safetensors")
        self._checkpoints.append(checkpoint)
        if self.process_group.size == 1:
            return checkpoint
        from finetune.training.checkpoint import ProcessGroupCheckpoint

        return ProcessGroupCheckpoint(self.process_group, checkpoint)

    def met(self, peak_memory: int) -> int:
        """Wait until every process of the group has written its share; return the largest of their peaks of memory."""
        if self.process_group.size == 1:
            return peak_memory
        if not self.process_group.leads:
            for file in self._unpublished:
                file.flush()
        found = self.process_group.gathered((peak_memory, [file.written for file in self._unpublished]))
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

    def scorer(self, parameters: ScorerParameters, head: Artifact | None, groups: Sequence[str]) -> "Scorer":
        """Return the model with its adapter and head, as `ModelCache.scorer`."""
        self.use_device(self.sweep.spec.compute.device)
        return self._state.models.scorer(parameters, head, groups, self.process_group)

    def forget_scorer(self) -> None:
        """Drop the loaded model; its memory is free at once unless the stage still holds it."""
        self._state.models.forget()
