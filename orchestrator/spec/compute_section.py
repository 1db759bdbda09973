"""The sections that say how stages run: `compute`, and `sharding` for models that one process cannot hold."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from orchestrator.spec.quantities import Count, Memory, Processes
from orchestrator.spec.section import Section


def _without_idle_stages(stage: Any) -> Any:
    if stage in (1, 2):
        raise ValueError(
            f"ZeRO stage {stage} shards gradients or states of an optimizer, and frozen weights have none: set 3, "
            "which shards the weights, or 0, which leaves them unsharded"
        )
    return stage


def _kind_of_batch_tokens(value: Any) -> str:
    """Return which of the two types a value was meant to be, so that only the errors of that type are reported."""
    return "auto" if isinstance(value, str) and not value.strip().isdecimal() else "number"


BatchTokens = Annotated[
    Annotated[Count, Tag("number")] | Annotated[Literal["auto"], Tag("auto")],
    Discriminator(_kind_of_batch_tokens),
]


Device = Literal["cpu", "cuda"]
GramDType = Literal["float64", "float32"]
RowDType = Literal["float16", "float32", "float64"]


class ComputeSection(Section):
    """The resources on which stages run: processes, devices, memory, precision of sums."""

    executor: Literal["ray", "inline"] = Field(
        "ray",
        description="ray runs stages in parallel processes; inline in this process, for debuggers.",
        examples=["ray"],
    )
    workers: Processes | None = Field(
        None,
        description="Number of worker processes; null takes one for every `threads` processors, or as many as the GPUs "
        "of this machine hold where `device` is cuda.",
        examples=[2],
    )
    workers_per_gpu: Processes = Field(
        1,
        description="Workers that share a GPU of this machine, each with an equal part of its memory. More than one is "
        "for small models, which leave most of a GPU idle. In allocations the profile's `gpus_per_task` says it.",
        examples=[2],
    )
    threads: Processes = Field(
        1,
        description="Threads of one stage. Part of the numbers: sums depend on it in the last bit.",
        examples=[1],
    )
    memory_budget: Memory = Field(
        2 * 10**9,
        description="Most memory that one worker spends on Jacobians and kernel blocks, beside the model.",
        examples=["2GB"],
    )
    gram_dtype: GramDType = Field(
        "float64",
        description="Precision of the products of which kernel blocks are made; they are added up in float64. float32 "
        "is for GPUs whose float64 units are slow (`plan` says so); H100 and H200 take both at the same speed.",
        examples=["float64"],
    )
    row_dtype: RowDType | None = Field(
        None,
        description="Precision in which Jacobian rows are summed over positions and stored; null takes that of the "
        "model, and float32 for models in bfloat16 or float16.",
        examples=["float32"],
    )
    device: Device = Field(
        "cpu",
        description="cuda runs models, kernel tiles and decompositions with eigenvectors on a GPU, one for each "
        "process unless `workers_per_gpu` says otherwise. Part of the numbers: sums depend on it in the last bits.",
        examples=["cuda"],
    )
    device_memory: Memory | None = Field(
        None,
        description="Memory of what one process computes on, by which `plan` tells whether the model fits; null asks "
        "this machine, which may have no such GPU.",
        examples=["80GB"],
    )
    deterministic: bool = Field(
        True,
        description="Whether a GPU has to give the same bits each time: all GPUs of the sweep are then of one kind, "
        "and slower algorithms are taken where faster ones add in any order. With false numbers agree to rounding, "
        "kernels are decomposed where that takes less time, and what was finished with true is kept.",
        examples=[True],
    )
    tf32: bool = Field(
        False,
        description="Whether a GPU may round the factors of kernel tiles in float32 to TF32, 10 bits, which is faster; "
        "the model never is.",
        examples=[False],
    )
    checkpointing: bool = Field(
        False,
        description="Keep activations at layer boundaries alone and compute the rest again in the backward passes: the "
        "same numbers from less memory, in more time.",
        examples=[True],
    )
    batch_tokens: BatchTokens = Field(
        2048,
        description="Most tokens (padding included) that go through the model at once; batches of `capture` have fewer "
        "where that saves more padding than it costs. auto measures on each seed's longest texts how many fit: a power "
        "of two up to 65,536, within 80 % of a GPU's free memory, or `memory_budget` on a CPU. The folder keeps the "
        "number that was found, so that its results stay; in another folder they agree to rounding.",
        examples=[2048, "auto"],
    )
    batching: Literal["together", "alone"] = Field(
        "together",
        description="together lets examples of similar length share a batch, which a trial before anything is captured "
        "allows only where that changes no numbers; alone takes every example through the model by itself and leaves "
        "the model as it was loaded, in more time: for architectures in which padding, other texts or those that came "
        "before change an example's numbers (FNet, ConvBERT, BigBird, ...). batch_tokens then has no effect.",
        examples=["together"],
    )
    shard_examples: Count | None = Field(
        None,
        description="Examples captured by one stage; null takes the most, up to 256, that a share of the memory budget "
        "holds.",
        examples=[256],
    )
    rows: Literal["auto", "resident", "stored"] = Field(
        "auto",
        description="Where Jacobian rows are kept. stored writes them to the disk, once. resident never does: a stage "
        "that makes kernel blocks computes the rows that it needs, keeps as many as memory holds for the next ones, "
        "and computes the others again for each panel of those. auto takes what costs less, and stored where something "
        "reads rows later: training, and layer sets with fewer parameters than the kernel has rows. `plan` says which "
        "it is, and why. The numbers are the same.",
        examples=["resident"],
    )

    @property
    def tokens_at_once(self) -> int | Literal["auto"]:
        """Most tokens of a batch: 1, and with it one example, where every example goes alone."""
        return 1 if self.batching == "alone" else self.batch_tokens


class ShardingSection(Section):
    """Process groups, each of which holds one model together, through DeepSpeed's ZeRO."""

    group_size: Processes = Field(
        description="Processes of a process group, which run one model together, each with a GPU where compute.device "
        "is cuda. The number of workers counts processes, and must be a multiple of it. Part of the numbers, in the "
        "last bits.",
        examples=[4],
    )
    stage: Annotated[Literal[0, 3], BeforeValidator(_without_idle_stages)] = Field(
        3,
        description="Stage of ZeRO: 3 shards the weights over the processes, from the first byte that is loaded; 0 "
        "leaves all of them on each process, and the processes share the examples alone.",
        examples=[3],
    )
    offload: Literal["none", "cpu"] = Field(
        "none",
        description="cpu keeps each process's part of the weights in the host's memory, and on the GPU only the layer "
        "that computes. Needs `compute.device: cuda` and `stage: 3`.",
        examples=["cpu"],
    )
