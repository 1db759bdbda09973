"""Memory of a model and of a batch's activations on each process, and settings with which they would fit."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from orchestrator.errors import BudgetError
from orchestrator.spec import Spec
from orchestrator.spec.compute_section import ShardingSection
from orchestrator.spec.quantities import human_bytes
from orchestrator.sweep.folder import Sweep
from orchestrator.sweep.sizes import BYTES
from orchestrator.sweep.survey_facts import Survey

LARGEST_GROUP = 1024
"""Processes of the largest process group that error messages suggest."""


@dataclass(frozen=True)
class ModelMemory:
    """The memory that one process takes for the model, in bytes.

    Attributes:
        whole: all weights.
        own: its part of the weights; on the host, not on the device, where `offloaded`.
        gathered: of the largest layer, whose weights come together from all processes while it computes.
        activations: of a batch, on the way forward and back; an estimate.
        offloaded: whether its part lies in the memory of the host.
    """

    whole: int
    own: int
    gathered: int
    activations: int
    offloaded: bool = False

    @property
    def certain(self) -> int:
        """Bytes of the weights that are on the device at once, a lower bound of the memory needed."""
        return self.gathered if self.offloaded else self.own + self.gathered

    @property
    def on_device(self) -> int:
        """All bytes that the model takes on the device."""
        return self.certain + self.activations


@dataclass(frozen=True)
class Device:
    """The device on which a process computes.

    Attributes:
        memory: bytes that it has.
        name: its name in messages.
    """

    memory: int
    name: str


def model_memory(spec: Spec, survey: Survey) -> ModelMemory:
    """Return the memory that a process takes for the model of a survey."""
    model, sharding = survey.model, spec.sharding
    element = BYTES[spec.model.dtype]
    whole = model.weight_bytes
    largest = model.largest_layer_bytes
    width = model.linear_width
    tokens = _tokens_at_once(spec)
    if spec.compute.checkpointing:
        layers = max(1, model.n_layers)
        width = width // layers + layers * model.hidden_size
    activations = tokens * width * element
    if sharding is None or not spec.is_sharded:
        return ModelMemory(whole, whole, 0, activations)
    own = -(-whole // sharding.group_size)
    return ModelMemory(whole, own, largest, activations, offloaded=sharding.offload == "cpu")


def _tokens_at_once(spec: Spec) -> int:
    """Return the tokens of a batch; those of the longest text if batches have one text or are chosen to fit."""
    if spec.compute.batching == "together" and spec.compute.batch_tokens != "auto":
        return spec.compute.batch_tokens
    return max(task.max_length for task in (spec.grid.tasks or {"": spec.task}).values())


def this_device(spec: Spec, workers: int) -> Device | None:
    """Return the device of each of some workers on this machine; None if it is known only on another machine."""
    if spec.compute.device_memory is not None:
        return Device(int(spec.compute.device_memory), "compute.device_memory")
    if spec.compute.device == "cpu":
        import psutil

        shared = f", divided among {workers} workers" if workers > 1 else ""
        return Device(psutil.virtual_memory().total // workers, f"this machine's memory{shared}")
    import torch

    from ntk_dist.device.share import part_of_gpu

    if not torch.cuda.is_available():
        return None
    whole, sharing = torch.cuda.get_device_properties(0).total_memory, spec.compute.workers_per_gpu
    if sharing == 1:
        return Device(whole, "this machine's GPU")
    return Device(part_of_gpu(whole, sharing), f"this machine's GPU, shared by {sharing}")


def fitting_notes(sweep: Sweep, survey: Survey, device: Device | None) -> list[str]:
    """Return sentences that state where the parts of the model are held, and why they fit or not."""
    spec, memory = sweep.spec, model_memory(sweep.spec, survey)
    holds = f"the model has {human_bytes(memory.whole)} in {spec.model.dtype}; "
    if memory.gathered:
        where = "keeps its part, on its host," if memory.offloaded else "keeps"
        holds += (
            f"each of {spec.group_size} processes of a group {where} {human_bytes(memory.own)} of it, and has "
            f"{human_bytes(memory.gathered)} more while the largest layer computes"
        )
    else:
        holds += "every process holds all of it" if spec.group_size > 1 else "every worker holds all of it"
    automatic = spec.compute.tokens_at_once == "auto"
    tokens = f"{_tokens_at_once(spec)} tokens" + (" (larger batches are chosen to fit)" if automatic else "")
    takes = (
        f"with about {human_bytes(memory.activations)} of activations for {tokens}, a process takes "
        f"{human_bytes(memory.on_device)}"
    )
    if device is None:
        return [holds, f"{takes} of its GPU, which this machine lacks: compute.device_memory says how much there is"]
    fits = f" of {human_bytes(device.memory)} ({device.name})"
    if memory.certain <= device.memory < memory.on_device:
        by_text = automatic or spec.compute.batching == "alone"
        lower = "task.max_length" if by_text else "compute.batch_tokens"
        besides = "" if spec.compute.checkpointing else ", or set compute.checkpointing: true"
        fits += f": too much, if the estimate holds; lower {lower}{besides}"
    return [holds, takes + fits]


def refuse_model_that_cannot_fit(sweep: Sweep, survey: Survey, device: Device | None) -> None:
    """Raise an error if the weights that must be on a device at once do not fit it.

    Raises:
        BudgetError: says what would fit.
    """
    memory = model_memory(sweep.spec, survey)
    if device is None or memory.certain <= device.memory:
        return
    ways = list(_ways_out(sweep.spec, survey, device))
    advice = f"these would fit: {'; '.join(ways)}" if ways else "no group of processes makes its largest layer fit"
    raise BudgetError(
        f"the model cannot fit: a process needs {human_bytes(memory.certain)} for weights alone and has "
        f"{human_bytes(device.memory)} ({device.name}); {advice}",
        key="model.path",
    )


def _ways_out(spec: Spec, survey: Survey, device: Device) -> Iterator[str]:
    changed, besides, size = spec, "", _smallest_group(spec, survey, device)
    if not spec.compute.checkpointing:
        again = spec.compute.model_copy(update={"checkpointing": True})
        checkpointed = spec.model_copy(update={"compute": again})
        smaller_group = _smallest_group(checkpointed, survey, device)
        # If the activations are too large, no process group of a reasonable size makes them small enough.
        if size is None or size > 2 * (smaller_group or 0):
            changed, besides, size = checkpointed, ", with compute.checkpointing: true", smaller_group
    if size is not None:
        yield f"sharding.group_size: {size} or more, and as many processes{besides}"
    if spec.compute.device == "cuda" and _fits(_sharded(changed, spec.group_size, offload="cpu"), survey, device):
        yield f"sharding.offload: cpu, more slowly{besides}"
    if spec.model.dtype in ("float64", "float32"):
        smaller = "float32" if spec.model.dtype == "float64" else "bfloat16"
        model = spec.model.model_copy(update={"dtype": smaller})
        whole, largest = (
            n_bytes * BYTES[smaller] // BYTES[spec.model.dtype]
            for n_bytes in (survey.model.weight_bytes, survey.model.largest_layer_bytes)
        )
        facts = replace(survey.model, weight_bytes=whole, largest_layer_bytes=largest)
        if _fits(spec.model_copy(update={"model": model}), replace(survey, model=facts), device):
            yield f"model.dtype: {smaller}"


def _smallest_group(spec: Spec, survey: Survey, device: Device) -> int | None:
    sizes = (1 << power for power in range(1, LARGEST_GROUP.bit_length()))
    return next((size for size in sizes if _fits(_sharded(spec, size), survey, device)), None)


def _sharded(spec: Spec, size: int, *, offload: Literal["none", "cpu"] = "none") -> Spec:
    return spec.model_copy(update={"sharding": ShardingSection(group_size=size, offload=offload)})


def _fits(spec: Spec, survey: Survey, device: Device) -> bool:
    return model_memory(spec, survey).on_device <= device.memory
