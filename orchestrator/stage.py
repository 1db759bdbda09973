"""A stage: a shared piece of work that many cells need, identified by everything that fixes its numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from orchestrator.identity import identity

NUMERICS_VERSION: Mapping[str, int] = {
    "survey": 2,
    "dataset": 2,
    "batches": 1,
    "head": 3,
    "head_refits": 1,
    "batching": 2,
    "precision": 3,
    "capture": 2,
    "gram": 1,
    "solve": 7,
    "additions": 3,
    "finetune": 4,
    "side_by_side": 3,
    "compare": 4,
    "combine": 3,
}
"""Raised for a stage kind when its numbers change, so that artifacts of older code are not taken for newer ones."""


@dataclass(frozen=True)
class Stage:
    """One stage of a plan.

    Attributes:
        kind: which of the stage kinds it is.
        parameters: everything that fixes its numbers, as JSON; no paths, no worker counts.
        inputs: identities of the stages whose artifacts it reads, by role, as (kind, stage_id).
    """

    kind: str
    parameters: Mapping[str, Any]
    inputs: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)

    @cached_property
    def stage_id(self) -> str:
        """Hash of kind, numerics version, parameters and inputs."""
        return identity(self.facts())

    @property
    def label(self) -> str:
        """What the stage is about, for people: its kind and the examples or the groups that it is for."""
        p = self.parameters
        if self.kind == "capture":
            return f"capture of {p['split']} examples {p['start']} to {p['stop'] - 1}, adapter seed {p['adapter_seed']}"
        if self.kind in ("solve", "additions"):
            sets = ", ".join("+".join(groups) for groups in p["layer_sets"][:3])
            return f"{self.kind} {'of' if self.kind == 'solve' else 'to'} {sets}" + (
                " and others" if len(p["layer_sets"]) > 3 else ""
            )
        if self.kind in ("finetune", "compare"):
            which = f"{self.kind} ({p['model']})" if self.kind == "finetune" else self.kind
            return f"{which} of {'+'.join(p['groups'])}, {len(p['lambdas'])} lambdas from {p['lambdas'][0]:g}"
        if self.kind == "side_by_side":
            first, count = p["members"][0], len(p["members"])
            cells = f"{len(first['lambdas'])} lambdas from {first['lambdas'][0]:g}"
            return f"{self.kind} of {'+'.join(first['groups'])}, {count} times {cells}"
        if self.kind == "combine":
            shared = p["tasks"]["a"]
            return f"combine tasks for {'+'.join(shared['groups'])}, {len(shared['lambdas'])} lambdas"
        return self.kind

    def facts(self) -> dict[str, Any]:
        """Return what the identity is the hash of; long input lists stand as their own hash."""
        return {
            "kind": self.kind,
            "version": NUMERICS_VERSION[self.kind],
            "parameters": dict(self.parameters),
            "inputs": {role: _inputs_digest(ids) for role, ids in self.inputs.items()},
        }

    def to_json(self) -> dict[str, Any]:
        """Return the stage as JSON."""
        return {"kind": self.kind, "parameters": dict(self.parameters), "inputs": dict(self.inputs)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Stage":
        """Return the stage that `to_json` wrote."""
        inputs = {role: tuple((kind, stage_id) for kind, stage_id in ids) for role, ids in data["inputs"].items()}
        return cls(data["kind"], data["parameters"], inputs)

    def inputs_of(self, member: str) -> dict[str, tuple[tuple[str, str], ...]]:
        """Return by role the inputs of one of several stages that this one stands for, here `<role>.<member>`."""
        suffix = f".{member}"
        return {role.removesuffix(suffix): ids for role, ids in self.inputs.items() if role.endswith(suffix)}

    def needs(self) -> set[tuple[str, str]]:
        """Return (kind, stage_id) of every stage that must be finished before this one can start."""
        return {needed for listed in self.inputs.values() for needed in listed}


@lru_cache(maxsize=4096)
def _inputs_digest(ids: tuple[tuple[str, str], ...]) -> str:
    # Hundreds of layer sets share one list of thousands of tiles: hash the list once.
    return identity(ids)
