"""Stages and their kinds; a stage is work that many cells share, identified by everything that fixes its numbers."""

from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields, is_dataclass
from functools import cached_property, lru_cache
from importlib import import_module
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, Generic, Protocol

from pydantic import BaseModel
from typing_extensions import TypeVar

from orchestrator.identity import identity
from orchestrator.loading import load_model_libraries, no_garbage

if TYPE_CHECKING:
    from orchestrator.stages.base.scope import Planning, SeedScope
    from orchestrator.stages.base.tables import Column, Table
    from orchestrator.stages.context.work import Product, Work
    from orchestrator.sweep.variant import Variant


P = TypeVar("P", default=Any)
"""Type of the parameters of a kind of stage."""

P_co = TypeVar("P_co", covariant=True, default=Any)


UNNAMED_IF_NONE = MappingProxyType({"unnamed if None": True})
"""Metadata of a field of parameters that takes no part in the identity, as if there were none, where it is None."""


@dataclass(frozen=True)
class StageCost:
    """Cost of a stage, as far as the plan knows it.

    Operations are told apart by what they wait for, because a machine's speed at each differs.

    Attributes:
        model_flops: floating-point operations of passes through the model.
        layer_passes: passes of a batch through a layer, forward or backward: each takes a time that no batch is too
            small for.
        product_flops: floating-point operations of products of large matrices.
        memory_flops: floating-point operations that wait for memory: of reductions to tridiagonal form, and of products
            with few vectors.
        read_bytes: bytes that it reads from the disk, at most: a worker keeps some of what it read before.
        written_bytes: bytes that it leaves there.
        moved_bytes: bytes that go to a GPU and back.
        memory_bytes: most memory that it takes on the host for Jacobians and blocks, beside the model and its
            activations.
        device_bytes: most memory that it takes for them on a GPU.
    """

    model_flops: float = 0.0
    layer_passes: float = 0.0
    product_flops: float = 0.0
    memory_flops: float = 0.0
    read_bytes: int = 0
    written_bytes: int = 0
    moved_bytes: int = 0
    memory_bytes: int = 0
    device_bytes: int = 0

    @property
    def flops(self) -> float:
        """All floating-point operations."""
        return self.model_flops + self.product_flops + self.memory_flops

    def __add__(self, other: "StageCost") -> "StageCost":
        """Return the cost of two parts that are computed one after the other, whose memory is taken at once."""
        return StageCost(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    def __rmul__(self, times: int) -> "StageCost":
        """Return the cost of doing it several times, one after the other, in the same memory."""
        amounts = {each.name: times * getattr(self, each.name) for each in fields(self)}
        return StageCost(**amounts | {"memory_bytes": self.memory_bytes, "device_bytes": self.device_bytes})


def no_cost(_stage: "Stage", _variant: "Variant") -> StageCost:
    """Return the cost of a stage that needs nothing beside its inputs."""
    return StageCost()


Inputs = Mapping[str, tuple[tuple[str, str], ...]]
"""Identities of stages by role, as (kind, stage_id)."""


class Reads(Protocol[P_co]):
    """Something that reads artifacts: a stage, or one of several parts of a stage."""

    @property
    def parameters(self) -> P_co:
        """Everything that fixes its numbers."""

    @property
    def inputs(self) -> Inputs:
        """The stages whose artifacts it reads."""


@dataclass(frozen=True)
class Part(Generic[P]):
    """One of several parts of a stage, with parameters and inputs of its own."""

    parameters: P
    inputs: Inputs


@dataclass(frozen=True)
class StageKind(Generic[P]):
    """A kind of stage, with everything that the rest of the project uses of it.

    Attributes:
        name: its name, in folders, tables and messages.
        parameters: a frozen dataclass of everything that fixes the numbers of a stage: no paths, no worker counts.
        version: raised when its numbers change, so that artifacts of older code are not taken for newer ones.
        meaning: what a stage of it computes, for people.
        module: module of its function `compute`, which a worker loads when it needs it.
        plan: adds the stages of a seed to its plan; None for a kind that others plan when they need it.
        plan_sweep: adds stages that depend on several seeds or variants, after all others.
        cost: returns the cost of a stage of a variant.
        label: returns a description of a stage for people; None where the name of the kind is enough.
        runs_model: whether it runs the model, in its precision, and all processes of a group compute it together.
        bundled: whether its stages are short beside what handing them to a worker costs, or share work: a worker is
            then given several at once, each of which is still claimed and published, and fails, by itself.
        reads_rows: returns why its stages read Jacobian rows of a variant from the disk, for people; empty where they
            do not. None for a kind that never does.
        advice: what to change if a stage does not fit the memory budget; empty for a kind that always fits.
        tables: tables that its stages fill.
        cell_columns: columns of the table `cells` that they fill.
    """

    name: str
    parameters: type[P]
    version: int
    meaning: str
    module: str
    plan: "Callable[[SeedScope], None] | None" = None
    plan_sweep: "Callable[[Planning], None] | None" = None
    cost: "Callable[[Stage[P], Variant], StageCost]" = no_cost
    label: "Callable[[Stage[P]], str] | None" = None
    runs_model: bool = False
    bundled: bool = False
    reads_rows: "Callable[[Variant], str] | None" = None
    advice: str = ""
    tables: "tuple[Table, ...]" = ()
    cell_columns: "tuple[Column, ...]" = ()

    def load(self) -> ModuleType:
        """Load the libraries that a stage of this kind needs, once a process; return the module that computes it."""
        if self.runs_model:
            load_model_libraries()
        with no_garbage():
            return import_module(self.module)

    def compute(self, stage: "Stage[P]", work: "Work") -> "Product":
        """Compute a stage."""
        product: Product = self.load().compute(stage, work)
        return product


@dataclass(frozen=True)
class Together:
    """Stages that one worker computes one after the other, because they share what it holds in memory.

    Attributes:
        key: the same for all of them.
        held: most of their inputs that the worker holds at once.
    """

    key: str
    held: int


@dataclass(frozen=True)
class Stage(Generic[P]):
    """One stage of a plan.

    Attributes:
        of: its kind.
        parameters: everything that fixes its numbers.
        inputs: identities of the stages whose artifacts it reads, by role, as (kind, stage_id).
        within: those of its inputs that leave no artifact: whoever computes it computes them too, in memory.
        together: the stages with which it shares what a worker holds; None for a stage that shares nothing. Neither of
            the two is part of the identity.
    """

    of: StageKind[P]
    parameters: P
    inputs: Inputs = field(default_factory=dict)
    within: "tuple[Stage[Any], ...]" = ()
    together: Together | None = None

    @property
    def kind(self) -> str:
        """Name of its kind."""
        return self.of.name

    @cached_property
    def stage_id(self) -> str:
        """Hash of kind, its version, parameters and inputs."""
        return identity(self.facts())

    @property
    def ref(self) -> tuple[str, str]:
        """Its kind and identity, by which other stages name it as an input."""
        return self.kind, self.stage_id

    @property
    def label(self) -> str:
        """A description of the stage for people: its kind and its examples or groups."""
        return self.of.label(self) if self.of.label else self.kind

    def facts(self) -> dict[str, Any]:
        """Return the value whose hash is the identity; long input lists are replaced by their own hash."""
        return {
            "kind": self.kind,
            "version": self.of.version,
            "parameters": as_json(self.parameters),
            "inputs": {role: _inputs_digest(ids) for role, ids in self.inputs.items()},
        }

    @property
    def runs_model(self) -> bool:
        """True if it runs the model, or a stage within it does."""
        return self.of.runs_model or any(stage.runs_model for stage in self.within)

    def to_json(self) -> dict[str, Any]:
        """Return the stage as JSON, for `orchestrator.stages.registry.stage_from_json`."""
        return {
            "kind": self.kind,
            "parameters": as_json(self.parameters),
            "inputs": dict(self.inputs),
            "within": [stage.to_json() for stage in self.within],
            "together": as_json(self.together),
        }

    def inputs_of(self, part: str) -> Inputs:
        """Return by role the inputs of one of its parts, here `<role>.<part>`."""
        suffix = f".{part}"
        return {role.removesuffix(suffix): ids for role, ids in self.inputs.items() if role.endswith(suffix)}

    def needs(self) -> set[tuple[str, str]]:
        """Return (kind, stage_id) of every stage that must be finished before this one can start."""
        needed = {each for listed in self.inputs.values() for each in listed}
        for stage in self.within:
            needed.discard(stage.ref)
            needed |= stage.needs()
        return needed


def as_json(parameters: Any) -> Any:
    """Return parameters as JSON: dataclasses and sections of a spec as objects, tuples as arrays."""
    if is_dataclass(parameters):
        named = {
            each.name: getattr(parameters, each.name) for each in fields(parameters) if _is_named(each, parameters)
        }
        return {name: _part_as_json(value) for name, value in named.items()}
    return parameters


def _is_named(each: "Field[Any]", parameters: Any) -> bool:
    return each.metadata != UNNAMED_IF_NONE or getattr(parameters, each.name) is not None


def _part_as_json(value: Any) -> Any:
    if type(value) in _SCALARS:
        return value
    if isinstance(value, tuple):
        plain = not value or type(value[0]) in _SCALARS
        return list(value) if plain else [_part_as_json(each) for each in value]
    return _shared_as_json(_Same(value))


_SCALARS = frozenset((str, int, float, bool, type(None)))


class _Same:
    """An object as a key: equal to itself alone, so that looking it up compares nothing in it."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value


@lru_cache(maxsize=256)
def _shared_as_json(same: _Same) -> Any:
    """Return a part of parameters as JSON; thousands of stages share one problem and one model."""
    value = same.value
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else as_json(value)


@lru_cache(maxsize=4096)
def _inputs_digest(ids: tuple[tuple[str, str], ...]) -> str:
    # Hundreds of layer sets share one list of thousands of tiles: hash the list once.
    return identity(ids)
