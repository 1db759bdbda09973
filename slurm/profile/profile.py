"""A cluster profile: what one allocation asks Slurm for, and what it enters before Python starts."""

from pathlib import Path
from typing import Annotated, Any, Literal

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from slurm.profile.quantities import bytes_of, duration, expanded_folder, gpu_part, minutes_of, not_logical
from slurm.profile.sbatch_options import checked_options
from slurm.profile.shell_words import checked_command, checked_module, checked_program, checked_word

LEAST_MEMORY = 100 * 10**6
"""Bytes below which `memory` is taken for a number whose unit was forgotten."""

Word = Annotated[str, AfterValidator(checked_word)]
Module = Annotated[str, AfterValidator(checked_module)]
Folder = Annotated[Path, AfterValidator(expanded_folder)]
Bytes = Annotated[int, BeforeValidator(bytes_of), Field(le=2**60)]
Count = Annotated[int, BeforeValidator(not_logical), Field(gt=0, le=100_000)]
CountOrNone = Annotated[int, BeforeValidator(not_logical), Field(ge=0, le=100_000)]


class Profile(BaseModel):
    """Resources that one allocation of a sweep asks for, and the way to start Python on its nodes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    partition: Word | None = Field(
        None, description="Partition; null takes the cluster's default. `sinfo` lists them.", examples=["gpu"]
    )
    account: Word | None = Field(None, description="Account that is charged; null takes yours.", examples=["nlp"])
    qos: Word | None = Field(None, description="Quality of service; null takes the account's.", examples=["normal"])
    nodes: Count = Field(1, description="Nodes of one allocation; one Ray runs over all of them.", examples=[2])
    tasks_per_node: Count = Field(
        1, description="Worker processes on a node; each computes one stage at a time.", examples=[4]
    )
    cpus_per_task: Count = Field(1, description="CPUs of one worker process.", examples=[8])
    memory: Bytes = Field(
        description="Memory of the allocation on each node, shared by its workers. GB is 10^9 bytes, GiB and Slurm's "
        "own G are 2^30.",
        examples=["64GB"],
    )
    gpus_per_task: Annotated[float, BeforeValidator(gpu_part), Field(ge=0, le=100_000)] = Field(
        0,
        description="GPUs of one worker process: a whole number, or 0.5, 0.33, 0.25, ... for two, three, four workers "
        "on a GPU, each with an equal part of its memory.",
        examples=[1],
    )
    gpu_type: Word | None = Field(
        None, description="Type of the GPUs, as `sinfo -o %G` lists it; null takes any.", examples=["a100"]
    )
    time_limit: str = Field(
        description="How long an allocation may run: 4h, 90m, 1d12h, or as Slurm writes it, 12:30:00, 1-12:00:00. "
        "Rounded up to whole minutes.",
        examples=["4h"],
    )
    signal_seconds: Annotated[int, BeforeValidator(not_logical), Field(ge=1, le=65535)] = Field(
        120,
        description="How long before its time limit an allocation is told to stop: it begins no further stage, and "
        "finishes those that it computes.",
        examples=[300],
    )
    requeues: CountOrNone = Field(
        3, description="How often an allocation is queued again after its time limit, while work is left.", examples=[3]
    )
    constraint: Word | None = Field(
        None, description="Features that the nodes must have, as `sinfo -o %f` lists them.", examples=["a100&nvlink"]
    )
    exclude: Word | None = Field(None, description="Nodes never to use.", examples=["node[07-09],node42"])
    modules: Annotated[tuple[Module, ...], Field(fail_fast=True)] = Field(
        (), description="Environment modules to load, in this order.", examples=[["python/3.11", "cuda/12.4"]]
    )
    container: Annotated[str, AfterValidator(checked_command)] | None = Field(
        None,
        description="Command put before Python, for a container that has ntksweep installed. No shell reads it: it "
        "holds no variables and no operators such as &&, which belong to `setup`.",
        examples=["apptainer exec --nv /shared/images/ntksweep.sif"],
    )
    virtual_environment: Folder | None = Field(
        None,
        description="Folder of a virtual environment or conda environment that has ntksweep installed; every node must "
        "see it.",
        examples=["/shared/envs/ntksweep"],
    )
    python: Annotated[str, AfterValidator(checked_program)] | None = Field(
        None,
        description="Python on the nodes; null takes that of the virtual environment, `python3` in a container, else "
        "the one that `ntksweep submit` runs on.",
        examples=["/opt/python/3.12/bin/python3"],
    )
    setup: Annotated[tuple[str, ...], Field(fail_fast=True)] = Field(
        (), description="Lines of shell to run before Python starts, after the modules.",
        examples=[["export HF_HOME=/scratch/huggingface"]],
    )  # fmt: skip
    shared_scratch: Annotated[tuple[Folder, ...], Field(fail_fast=True)] = Field(
        (),
        description="Folders that every node sees under the same path. If any are given, the results folder must lie "
        "under one of them. ~ and variables such as $USER are filled in.",
        examples=[["/scratch", "/home"]],
    )
    local_scratch: Folder = Field(
        Path("/tmp"),
        description="Folder on each node's own disk, for Ray's sockets and spilled objects; a short path.",
        examples=["/local"],
    )
    object_store: Bytes = Field(
        200 * 10**6,
        ge=80 * 10**6,
        description="Memory on each node for what Ray passes between processes; taken out of `memory`. ntksweep passes "
        "little: its data goes through files. Ray wants 80MB at least.",
        examples=["200MB"],
    )
    dashboard: bool = Field(
        False,
        description="Start Ray's dashboard on the first node, on its loopback address only. Needs ray[default] there.",
        examples=[False],
    )
    results: Literal["private", "group", "everyone"] = Field(
        "private", description="Who may read the results folder: you, your group, or everyone.", examples=["group"]
    )
    slurm: str | None = Field(
        None, description="Versions of Slurm that this profile was written for.", examples=[">=21.08"]
    )
    sbatch: dict[str, str | int | bool] = Field(
        {},
        description="Further options of sbatch by their long names; true stands for an option without a value.",
        examples=[{"exclusive": True, "licenses": "matlab:1"}],
    )
    allocations: Count = Field(
        1, description="How many allocations work on the sweep; `--allocations` overrides it.", examples=[4]
    )

    @field_validator("time_limit", mode="before")
    @classmethod
    def _a_duration(cls, text: Any) -> str:
        if isinstance(text, bool) or not isinstance(text, (str, int, float)):
            raise ValueError("give a duration with a unit: 4h, 90m, 1d12h, 12:30:00 or 1-12:00:00")
        # YAML reads 90 as a number, which could mean minutes or seconds.
        minutes_of(str(text))
        return str(text)

    @field_validator("memory")
    @classmethod
    def _has_a_unit(cls, memory: int) -> int:
        if memory < LEAST_MEMORY:
            raise ValueError(f"{memory} bytes are too few to start Python and Ray: write the unit, as in 64GB")
        return memory

    @field_validator("slurm")
    @classmethod
    def _version_specifier(cls, text: str | None) -> str | None:
        try:
            SpecifierSet(text or "")
        except InvalidSpecifier:
            raise ValueError(f"`{str(text)[:60]}` does not say which versions: write >=21.08, or >=21.08,<25") from None
        return text

    @field_validator("sbatch")
    @classmethod
    def _further_options(cls, options: dict[str, str | int | bool]) -> dict[str, str | int | bool]:
        return checked_options(options)

    @model_validator(mode="after")
    def _consistent(self) -> "Profile":
        if self.gpu_type is not None and self.gpus_per_task == 0:
            raise ValueError("gpu_type needs GPUs: set gpus_per_task, or remove it")
        if self.virtual_environment is not None and (self.container is not None or self.python is not None):
            raise ValueError(
                "virtual_environment brings its own Python: remove `container` or `python`, or give the Python inside "
                "as `python` alone"
            )
        if self.object_store * 2 > self.memory:
            raise ValueError("object_store takes more than half of `memory`: lower it, or raise `memory`")
        if self.signal_seconds >= self.minutes * 60:
            raise ValueError(
                f"signal_seconds leaves nothing of a time limit of {duration(self.minutes)}: lower it, or raise "
                "`time_limit`"
            )
        if self.minutes > 10 and self.signal_seconds > self._latest_signal:
            raise ValueError(
                f"signal_seconds may be {self._latest_signal} at most for a time limit of {duration(self.minutes)}: a "
                "signal that comes earlier would be taken for a preemption, and `requeues` would not count it"
            )
        return self

    @property
    def _latest_signal(self) -> int:
        # submitit takes a signal for that of the time limit if it comes in the last fifth of the limit, or in the last
        # ten minutes if those are more; Slurm may send it a minute early.
        return max(self.minutes * 60 // 5, 600) - 60

    @property
    def minutes(self) -> int:
        """The time limit in whole minutes, as Slurm counts it."""
        return minutes_of(self.time_limit)

    @property
    def cpus_per_node(self) -> int:
        """CPUs of the allocation on each node."""
        return self.tasks_per_node * self.cpus_per_task

    @property
    def gpus_per_node(self) -> int:
        """GPUs of the allocation on each node."""
        return (
            -(-self.tasks_per_node // self.workers_per_gpu) * max(1, int(self.gpus_per_task))
            if self.gpus_per_task
            else 0
        )

    @property
    def workers_per_gpu(self) -> int:
        """Number of workers that share a GPU."""
        return round(1 / self.gpus_per_task) if 0 < self.gpus_per_task < 1 else 1

    @property
    def memory_mebibytes(self) -> int:
        """Memory of the allocation on each node in MiB, the unit that Slurm calls M."""
        return self.memory // 2**20
