"""Stages and their kinds; a stage is work that many cells share, identified by everything that fixes its numbers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from orchestrator.identity import identity
from orchestrator.loading import load_model_libraries, no_garbage

if TYPE_CHECKING:
    from orchestrator.stages.context.work import Product, Work
    from orchestrator.sweep.variant import Variant


@dataclass(frozen=True)
class StageCost:
    """Cost of a stage, as far as the plan knows it.

    Attributes:
        flops: floating-point operations.
        disk_bytes: bytes that it leaves.
        memory_bytes: most memory that it takes for Jacobians and blocks, beside the model and its activations.
    """

    flops: float = 0.0
    disk_bytes: int = 0
    memory_bytes: int = 0


def no_cost(_stage: "Stage", _variant: "Variant") -> StageCost:
    """Return the cost of a stage that needs nothing beside its inputs."""
    return StageCost()


@dataclass(frozen=True)
class StageKind:
    """A kind of stage, with everything that the rest of the project uses of it.

    Attributes:
        name: its name, in folders, tables and messages.
        version: raised when its numbers change, so that artifacts of older code are not taken for newer ones.
        meaning: what a stage of it computes, for people.
        module: module of its function `compute`, which a worker loads when it needs it.
        cost: returns the cost of a stage of a variant.
        label: returns a description of a stage for people; None where the name of the kind is enough.
        runs_model: whether it runs the model, in its precision, and all processes of a group compute it together.
        advice: what to change if a stage does not fit the memory budget; empty for a kind that always fits.
    """

    name: str
    version: int
    meaning: str
    module: str
    cost: "Callable[[Stage, Variant], StageCost]" = no_cost
    label: "Callable[[Stage], str] | None" = None
    runs_model: bool = False
    advice: str = ""

    def compute(self, stage: "Stage", work: "Work") -> "Product":
        """Compute a stage; the first stage of the kind loads the libraries that it needs."""
        if self.runs_model:
            load_model_libraries()
        with no_garbage():
            module = import_module(self.module)
        product: Product = module.compute(stage, work)
        return product


@dataclass(frozen=True)
class Stage:
    """One stage of a plan.

    Attributes:
        of: its kind.
        parameters: everything that fixes its numbers, as JSON; no paths, no worker counts.
        inputs: identities of the stages whose artifacts it reads, by role, as (kind, stage_id).
    """

    of: StageKind
    parameters: Mapping[str, Any]
    inputs: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Name of its kind."""
        return self.of.name

    @cached_property
    def stage_id(self) -> str:
        """Hash of kind, its version, parameters and inputs."""
        return identity(self.facts())

    @property
    def label(self) -> str:
        """A description of the stage for people: its kind and its examples or groups."""
        return self.of.label(self) if self.of.label else self.kind

    def facts(self) -> dict[str, Any]:
        """Return the value whose hash is the identity; long input lists are replaced by their own hash."""
        return {
            "kind": self.kind,
            "version": self.of.version,
            "parameters": dict(self.parameters),
            "inputs": {role: _inputs_digest(ids) for role, ids in self.inputs.items()},
        }

    def to_json(self) -> dict[str, Any]:
        """Return the stage as JSON, for `orchestrator.stages.registry.stage_from_json`."""
        return {"kind": self.kind, "parameters": dict(self.parameters), "inputs": dict(self.inputs)}

    def inputs_of(self, member: str) -> dict[str, tuple[tuple[str, str], ...]]:
        """Return by role the inputs of one of the stages that this one replaces; here they are `<role>.<member>`."""
        suffix = f".{member}"
        return {role.removesuffix(suffix): ids for role, ids in self.inputs.items() if role.endswith(suffix)}

    def needs(self) -> set[tuple[str, str]]:
        """Return (kind, stage_id) of every stage that must be finished before this one can start."""
        return {needed for listed in self.inputs.values() for needed in listed}


@lru_cache(maxsize=4096)
def _inputs_digest(ids: tuple[tuple[str, str], ...]) -> str:
    # Hundreds of layer sets share one list of thousands of tiles: hash the list once.
    return identity(ids)
