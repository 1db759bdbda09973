"""The sections of the spec and their keys."""

from pydantic import BaseModel

from orchestrator.spec.compute_section import ComputeSection, ShardingSection
from orchestrator.spec.finetune_section import FinetuneSection
from orchestrator.spec.grid_section import GridSection, LambdaSection
from orchestrator.spec.listed import FlowTimesSection, Logspace
from orchestrator.spec.sections import (
    AdapterSection,
    HeadSection,
    KernelSection,
    ModelSection,
    ResultsSection,
    TaskSection,
)

SECTIONS: dict[str, type[BaseModel]] = {
    "model": ModelSection,
    "task": TaskSection,
    "adapter": AdapterSection,
    "head": HeadSection,
    "kernel": KernelSection,
    "kernel.flow_times": FlowTimesSection,
    "finetune": FinetuneSection,
    "grid": GridSection,
    "grid.lambdas": LambdaSection,
    "grid.lambdas.logspace": Logspace,
    "compute": ComputeSection,
    "sharding": ShardingSection,
    "results": ResultsSection,
}

KEYS = [(section, key) for section, model in SECTIONS.items() for key in model.model_fields]
