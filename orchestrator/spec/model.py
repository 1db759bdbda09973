"""The whole spec, and the rules that tie its sections together."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import (
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from orchestrator.documents.lines import Lines
from orchestrator.spec.compute_section import ComputeSection, RowDType, ShardingSection
from orchestrator.spec.finetune_section import FinetuneSection
from orchestrator.spec.grid_section import GridSection
from orchestrator.spec.section import Section
from orchestrator.spec.sections import (
    AdapterSection,
    HeadSection,
    KernelSection,
    ModelSection,
    ResultsSection,
    TaskSection,
)
from orchestrator.spec.together import check_combinations, check_together

_REQUIRED = {"data": "data", "kind": "classification", "n_eval": 1}
"""Placeholder for a section that is checked by itself; a spec that needs the placeholder has a fault elsewhere."""


class Spec(Section):
    """A sweep: its model, its task, its grid, and the settings of every computation."""

    name: str = Field(description="Name of the sweep; letters, digits, - _ and .", examples=["quickstart"])
    model: ModelSection = Field(description="The pretrained model.")
    task: TaskSection = Field(description="The sentences and their labels.")
    adapter: AdapterSection = Field(description="The parameters that could be fine-tuned.")
    head: HeadSection = Field(default_factory=HeadSection, description="The head, from hidden states to outputs.")
    kernel: KernelSection = Field(default_factory=KernelSection, description="The kernel and its spectrum.")
    grid: GridSection = Field(description="The axes of the sweep.")
    finetune: FinetuneSection | None = Field(
        None, description="The training of every cell and of its linearization; null trains nothing."
    )
    compute: ComputeSection = Field(default_factory=ComputeSection, description="The resources on which stages run.")
    sharding: ShardingSection | None = Field(
        None, description="Process groups that hold one model together; with null every worker holds all of the model."
    )
    results: ResultsSection = Field(
        default_factory=ResultsSection, description="The results folder and its optional tables."
    )
    _overrides: tuple[str, ...] = PrivateAttr(())
    _lines: Lines = PrivateAttr(default_factory=Lines)

    @field_validator("name")
    @classmethod
    def _file_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError("use only letters, digits, - _ and . in a name, because a folder gets it")
        return name

    @model_validator(mode="before")
    @classmethod
    def _tasks_from_task(cls, data: Any) -> Any:
        return _with_whole_tasks(data)

    @model_validator(mode="after")
    def _consistent(self) -> "Spec":
        grid = self.grid
        if grid.ranks is not None and self.adapter.kind != "lora":
            raise ValueError("grid.ranks are ranks of LoRA: set adapter.kind: lora, or leave them out")
        if grid.learning_rates is not None and self.finetune is None:
            raise ValueError("grid.learning_rates belong to training: give the spec a section `finetune`")
        for axis, values in (("ranks", grid.ranks), ("learning_rates", grid.learning_rates)):
            if values is not None and len(set(values)) < len(values):
                raise ValueError(f"grid.{axis} names a value twice; remove one")
        check_combinations(self)
        for name, task in (grid.tasks or {"": self.task}).items():
            try:
                check_together(self, task)
            except ValueError as error:
                raise ValueError(f"task {name}: {error}" if name else str(error)) from None
        return self

    @property
    def overrides(self) -> tuple[str, ...]:
        """What was given beside the spec's file, as `KEY=VALUE`; its values are in the keys."""
        return self._overrides

    def with_overrides(self, overrides: Iterable[str]) -> "Spec":
        """Return the same spec with a record of what was given beside its file."""
        recorded = self.model_copy()
        recorded._overrides = tuple(overrides)
        return recorded

    @property
    def lines(self) -> Lines:
        """The lines on which its keys stand, if it was read from a file."""
        return self._lines

    def with_lines(self, lines: Lines) -> "Spec":
        """Return the same spec, whose keys stand on `lines`."""
        placed = self.model_copy()
        placed._lines = lines
        return placed

    @property
    def head_trained(self) -> bool | None:
        """True if training changes the head; None where nothing is trained."""
        if self.finetune is None:
            return None
        return self.head.in_kernel if self.finetune.train_head is None else self.finetune.train_head

    @property
    def is_sharded(self) -> bool:
        """True if a process holds only a part of the model on its device, as in `ShardingSettings.shards_weights`."""
        held = self.sharding
        return held is not None and held.stage == 3 and (held.group_size > 1 or held.offload == "cpu")

    @property
    def group_size(self) -> int:
        """Number of processes that run one model together."""
        return self.sharding.group_size if self.sharding else 1

    @property
    def row_dtype(self) -> RowDType:
        """Precision in which Jacobian rows are stored."""
        if self.compute.row_dtype is not None:
            return self.compute.row_dtype
        return "float64" if self.model.dtype == "float64" else "float32"

    @property
    def folder(self) -> Path:
        """The results folder of this sweep."""
        return self.results.folder or Path("results") / self.name


def _with_whole_tasks(data: Any) -> Any:
    """Return the content of a spec whose tasks in `grid.tasks` have all their keys, and `task` those of the first.

    Faults are left for the check of the sections, so that each is reported once and in its place: a fault of `task` is
    reported there, and not again for each task that takes keys from it.
    """
    if not isinstance(data, dict) or not isinstance(data.get("grid"), dict):
        return data
    shared, tasks = data.get("task") or {}, data["grid"].get("tasks")
    mappings = [shared, tasks, *(tasks.values() if isinstance(tasks, dict) else ())]
    if not tasks or not all(isinstance(each, dict) for each in mappings):
        return data
    alone = {**_REQUIRED, **shared}
    whole = {name: {**(shared if _is_valid(alone) else _REQUIRED), **own} for name, own in tasks.items()}
    first = next(iter(whole.values()))
    task = first if _is_valid(alone) and _is_valid(first) else alone
    return {**data, "task": task, "grid": {**data["grid"], "tasks": whole}}


def _is_valid(section: Mapping[str, Any]) -> bool:
    try:
        TaskSection.model_validate(section)
    except ValidationError:
        return False
    return True
