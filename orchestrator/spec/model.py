"""The whole spec, and the rules that tie its sections together."""

import re
from pathlib import Path
from typing import Any

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from orchestrator.spec.finetune_section import FinetuneSection
from orchestrator.spec.grid_section import GridSection
from orchestrator.spec.sections import (
    AdapterSection,
    ComputeSection,
    HeadSection,
    KernelSection,
    ModelSection,
    ResultsSection,
    Section,
    TaskSection,
)


class Spec(Section):
    """A sweep: what to compute, over which grid, and where to leave it."""

    name: str = Field(description="Name of the sweep; letters, digits, - _ and .", examples=["quickstart"])
    model: ModelSection = Field(description="The pretrained model.")
    task: TaskSection = Field(description="The sentences and their labels.")
    adapter: AdapterSection = Field(description="The parameters that could be fine-tuned.")
    head: HeadSection = Field(default_factory=HeadSection, description="From hidden states to outputs.")
    kernel: KernelSection = Field(default_factory=KernelSection, description="The kernel and its spectrum.")
    grid: GridSection = Field(description="The axes of the sweep.")
    finetune: FinetuneSection | None = Field(
        None, description="How every cell is trained, beside its linearization; null trains nothing."
    )
    compute: ComputeSection = Field(default_factory=ComputeSection, description="How the stages run.")
    results: ResultsSection = Field(default_factory=ResultsSection, description="Where results go.")

    @field_validator("name")
    @classmethod
    def _file_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError("a name has letters, digits, - _ and . only, for it names a folder")
        return name

    @model_validator(mode="after")
    def _consistent(self) -> "Spec":
        if self.kernel.outputs == "margin" and (
            self.task.kind != "classification" or self.task.classes not in (None, 2)
        ):
            raise ValueError("kernel.outputs: margin is the difference of two logits and needs two classes")
        if self.head.kind in ("ridge", "logistic") and len(set(self.grid.n_train)) > 1:
            raise ValueError(
                "a fitted head depends on the training set: give grid.n_train one value (and sweep sizes as "
                "several specs), or use `head: {kind: random}`"
            )
        adapter_fixed = self.adapter.seed is not None or self.adapter.kind == "none"
        head_fixed = self.head.seed is not None or self.head.kind != "random"
        if len(set(self.grid.seeds)) > 1 and self.task.sample_seed is not None and adapter_fixed and head_fixed:
            raise ValueError(
                "grid.seeds has several values, but sample, adapter and head all have seeds of their own: every "
                "seed would compute the same: give one, or leave one of task.sample_seed, adapter.seed, head.seed out"
            )
        if self.head.kind == "logistic" and self.task.kind != "classification":
            raise ValueError("head.kind: logistic needs a classification task; use ridge for regression")
        if self.head.kind == "label_words" and self.task.kind != "classification":
            raise ValueError("head.kind: label_words needs a classification task")
        if self.finetune is not None:
            self._check_finetune(self.finetune)
        return self

    @model_serializer(mode="wrap")
    def _without_unused_sections(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A spec without training reads, and is hashed, as it was before there was any.
        content: dict[str, Any] = write(self)
        return {key: value for key, value in content.items() if key != "finetune" or value is not None}

    def _check_finetune(self, finetune: FinetuneSection) -> None:
        if finetune.loss == "cross_entropy" and self.task.kind != "classification":
            raise ValueError("finetune.loss: cross_entropy needs a classification task; use squared")
        if self.kernel.kind != "sgd":
            raise ValueError("finetune compares training with the sgd kernel, which describes it: set kernel.kind: sgd")
        if finetune.train_head and self.head.kind == "label_words":
            raise ValueError("finetune.train_head: label_words has no head to train: leave the key out")
        if finetune.train_head is False and self.head.in_kernel:
            raise ValueError(
                "finetune.train_head: false keeps the head where it is, but the kernel has its parameters, as if they "
                "moved: set head.in_kernel: false too"
            )
        if finetune.regularizer == "spd" and self.grid.lambdas.scale != "absolute":
            raise ValueError(
                "finetune.regularizer: spd takes lambda as a share of the way back, not as the strength of a penalty: "
                "set grid.lambdas.scale: absolute, with values around 1"
            )

    @property
    def head_trained(self) -> bool | None:
        """Whether training changes the head; None where nothing is trained."""
        if self.finetune is None:
            return None
        return self.head.in_kernel if self.finetune.train_head is None else self.finetune.train_head

    @property
    def folder(self) -> Path:
        """The results folder of this sweep."""
        return self.results.folder or Path("results") / self.name
