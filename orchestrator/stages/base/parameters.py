"""Parameters that several kinds of stages have in common: those of the model, of its rows, of a regression problem."""

from dataclasses import dataclass
from typing import Literal, Protocol

from finetune.settings import AdapterSettings, HeadSettings, ModelDType, ShardingSettings, TaskKind
from ntk_dist.kernel.features import OutputMode
from orchestrator.spec.compute_section import ComputeSection, Device, GramDType, RowDType
from orchestrator.spec.sections import KernelSection

DEVICE_BYTES = 256 << 20
DEVICE_SHARE_OF_BUDGET = 4
"""Most GPU memory of a tile, in bytes and as a share of the memory budget: the same budget has to hold, on the host,
the rows that are on their way to the GPU."""


@dataclass(frozen=True)
class ScorerParameters:
    """Everything that fixes the numbers of a model with its adapter and head.

    Attributes:
        model: identity of the checkpoint's content.
        weights_seed: seed of random weights; None for those of the checkpoint.
        dtype: precision of weights and activations.
        row_dtype: precision in which Jacobian rows are stored.
        device: device that runs it.
        sharding: of the weights over a process group; None where each worker holds all of the model.
        attention: attention implementation.
        adapter: the parameters whose Jacobian is taken.
        adapter_seed: seed of the adapter's weights.
        head: the head.
        head_seed: seed of the head's weights.
        n_outputs: outputs C.
        batch_tokens: most tokens of a batch, padding included; "auto" for those that were found to fit.
        batching: whether examples share batches.
        threads: processors that compute one stage.
    """

    model: str
    weights_seed: int | None
    dtype: ModelDType
    row_dtype: RowDType
    device: Device
    sharding: ShardingSettings | None
    attention: Literal["sdpa", "eager"]
    adapter: AdapterSettings
    adapter_seed: int
    head: HeadSettings
    head_seed: int
    n_outputs: int
    batch_tokens: int | Literal["auto"]
    batching: Literal["together", "alone"]
    threads: int


@dataclass(frozen=True)
class RowsParameters:
    """Everything that fixes the Jacobian rows of an example.

    Attributes:
        scorer: the model.
        outputs: outputs that are differentiated.
        groups: groups of parameters, in the model's order.
        batch_size: most examples of a batch.
    """

    scorer: ScorerParameters
    outputs: OutputMode
    groups: tuple[str, ...]
    batch_size: int


@dataclass(frozen=True)
class KernelDevice:
    """The device that computes kernel blocks, as far as it fixes their numbers.

    Attributes:
        device: its kind.
        device_bytes: GPU memory of a tile, which decides its division and so the order of sums; None on a processor.
        tf32: whether products may use TF32.
    """

    device: Device
    device_bytes: int | None
    tf32: bool

    @classmethod
    def of(cls, compute: ComputeSection) -> "KernelDevice":
        """Return the device of a spec.

        The bytes of a tile are a part of the memory budget, which therefore belongs to the numbers where it is small.
        """
        of_a_gpu = min(DEVICE_BYTES, compute.memory_budget // DEVICE_SHARE_OF_BUDGET)
        return cls(compute.device, of_a_gpu if compute.device != "cpu" else None, compute.tf32)


@dataclass(frozen=True)
class ProblemParameters:
    """Everything that fixes a regression problem but layer set and lambda.

    Attributes:
        dataset: identity of the stage `dataset`.
        task_kind: classification or regression.
        scorer: the model.
        kernel: the section of the spec, without keys that other stages have.
        gram_dtype: precision of products.
        shard_examples: examples of a shard, which decide the order of sums.
        kernel_device: device of kernel blocks.
        n_train: training examples.
    """

    dataset: str
    task_kind: TaskKind
    scorer: ScorerParameters
    kernel: KernelSection
    gram_dtype: GramDType
    shard_examples: int
    kernel_device: KernelDevice
    n_train: int


class WithProblem(Protocol):
    """Parameters of stages that solve, train or compare: each is about one regression problem."""

    @property
    def problem(self) -> ProblemParameters:
        """The regression problem."""
