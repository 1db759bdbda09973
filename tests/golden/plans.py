"""The form in which plans are written: the same for equal plans, whatever identities and order their stages have.

A stage is a dictionary of dotted parameters and of what it depends on (`from ROLE`). Stages of a kind are numbered in
the order of their content; an identity is replaced by the kind and the number of its stage, any other hash by `<id>`.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tests.golden.renames import Renames

HASH = re.compile(r"\b[0-9a-f]{24,}\b")
WHOLE_UP_TO = 60
"""Stages up to which a plan is committed line by line; of larger ones what their stages have in common."""
MOST_VALUES = 8


@dataclass(frozen=True)
class Stage:
    """A stage of a plan.

    Attributes:
        label: its identity, or `kind number`.
        kind: its kind.
        facts: parameters, by dotted name.
        inputs: labels of the stages that it depends on, by role.
    """

    label: str
    kind: str
    facts: Mapping[str, Any]
    inputs: Mapping[str, Sequence[str]]


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested dictionaries, and of lists of such, under dotted names."""
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from flat(each, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for position, each in enumerate(value):
            yield from flat(each, f"{name}.{position}")
    else:
        yield name, value


def from_target(answer: Mapping[str, Any]) -> list[Stage]:
    """Return the stages of a plan as the recorded checkout gave it."""
    return [
        Stage(each["label"], each["kind"], dict(flat(each["parameters"])), each["inputs"]) for each in answer["stages"]
    ]


def canonical(stages: Sequence[Stage]) -> dict[str, list[dict[str, Any]]]:
    """Return the stages by kind, each as one dictionary, numbered in the order of their content."""
    levels: dict[str, int] = {}
    by_label = {stage.label: stage for stage in stages}

    def level(stage: Stage) -> int:
        if stage.label not in levels:
            needed = [by_label[label] for labels in stage.inputs.values() for label in labels]
            levels[stage.label] = 1 + max(map(level, needed), default=0)
        return levels[stage.label]

    for stage in stages:
        level(stage)
    numbered: dict[str, tuple[str, int]] = {}
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    groups: dict[tuple[int, str], list[Stage]] = defaultdict(list)
    for stage in stages:
        groups[levels[stage.label], stage.kind].append(stage)
    for _, group in sorted(groups.items()):
        said = [(_said(stage, numbered), stage) for stage in group]
        for facts, stage in sorted(said, key=lambda each: _order(each[0])):
            numbered[stage.label] = stage.kind, len(found[stage.kind])
            found[stage.kind].append(facts)
    return dict(found)


def _said(stage: Stage, numbered: Mapping[str, tuple[str, int]]) -> dict[str, Any]:
    def named(value: Any) -> Any:
        if isinstance(value, list):
            return [named(each) for each in value]
        if not isinstance(value, str):
            return value
        return " ".join(map(str, numbered[value])) if value in numbered else HASH.sub("<id>", value)

    inputs = {f"from {role}": _ranges([numbered[each] for each in labels]) for role, labels in stage.inputs.items()}
    return dict(sorted({name: named(value) for name, value in stage.facts.items()}.items())) | dict(
        sorted(inputs.items())
    )


def _order(facts: Mapping[str, Any]) -> list[Any]:
    """Return what sorts as the facts do, numbers by size, also those in labels."""
    return [(name, *_rank(value)) for name, value in facts.items()]


def _rank(value: Any) -> tuple[int, float, str]:
    if isinstance(value, int | float):
        return 0, value, ""
    return 1, 0, _padded(value if isinstance(value, str) else json.dumps(value))


@lru_cache(maxsize=100_000)
def _padded(text: str) -> str:
    return re.sub(r"\d+", lambda digits: digits[0].zfill(12), text)


@lru_cache(maxsize=100_000, typed=True)
def _scalar(value: Any) -> str:
    return json.dumps(value)


def _json(value: Any) -> str:
    return json.dumps(value) if isinstance(value, list) else _scalar(value)


def _ranges(labels: Sequence[tuple[str, int]]) -> str:
    """Return `gram 0-3, gram 7` for a list of labels."""
    runs: list[tuple[str, int, int]] = []
    for kind, number in labels:
        if runs and runs[-1][0] == kind and runs[-1][2] == number - 1:
            runs[-1] = kind, runs[-1][1], number
        else:
            runs.append((kind, number, number))
    return ", ".join(f"{kind} {first}" + (f"-{last}" if last > first else "") for kind, first, last in runs)


def _labels(ranges: str) -> list[str]:
    found = []
    for run in filter(None, ranges.split(", ")):
        kind, _, numbers = run.rpartition(" ")
        first, _, last = numbers.partition("-")
        found += [f"{kind} {number}" for number in range(int(first), int(last or first) + 1)]
    return found


def written(cells: int, kinds: Mapping[str, Sequence[Mapping[str, Any]]], *, whole: bool) -> str:
    """Return a plan as text: for each kind what all stages say, then each stage, or how often a value occurs."""
    lines = [f"cells {cells}", ""]
    for kind, stages in sorted(kinds.items()):
        lines.append(f"{kind} ({len(stages)})")
        texts = [{name: _json(value) for name, value in stage.items()} for stage in stages]
        names = sorted({name for stage in texts for name in stage}, key=lambda name: (name.startswith("from "), name))
        counts = {name: Counter(stage.get(name) for stage in texts) for name in names}
        always = {name: next(iter(counted)) for name, counted in counts.items() if len(counted) == 1}
        lines += [f"  always {name}: {value}" for name, value in always.items()]
        if whole:
            for number, stage in enumerate(texts):
                own = ", ".join(f'"{name}": {stage[name]}' for name in names if name in stage and name not in always)
                lines.append(f"  {number} {{{own}}}")
        else:
            lines += [f"  varies {name}: {_told(counts[name], name)}" for name in names if name not in always]
        lines.append("")
    return "\n".join(lines)


def _told(counted: Mapping[str | None, int], name: str) -> str:
    if name.startswith("from ") or len(counted) > MOST_VALUES:
        return f"{len(counted)} values"
    pairs = sorted((value or "(none)", count) for value, count in counted.items())
    return "; ".join(f"{value} in {count}" for value, count in pairs)


def through(text: str, renames: Renames) -> str:
    """Return the text of a plan as it would have been written with other names."""
    head, *parts = text.strip().split("\n\n")
    if any(line.startswith("  varies ") for line in text.splitlines()):
        return "\n\n".join([head, *sorted(_part_through(part, renames) for part in parts)]) + "\n"
    stages = [stage for part in parts for stage in _parsed(part, renames)]
    return written(int(head.split()[1]), canonical(stages), whole=True)


def _part_through(part: str, renames: Renames) -> str:
    heading, *lines = part.splitlines()
    kind, _, count = heading.partition(" ")
    said = []
    for line in lines:
        word, name, value = re.fullmatch(r"  (\w+) ((?:from )?[^:]+): (.*)", line).groups()  # type: ignore[union-attr]
        said.append((word, name.startswith("from "), renames.parameter(name), renames.labels(value)))
    return "\n".join([f"{renames.kind(kind)} {count}", *(f"  {word} {n}: {v}" for word, _, n, v in sorted(said))])


def _parsed(part: str, renames: Renames) -> Iterator[Stage]:
    heading, *lines = part.splitlines()
    kind = heading.partition(" ")[0]
    always: dict[str, Any] = {}
    for line in lines:
        if line.startswith("  always "):
            name, _, value = line.removeprefix("  always ").partition(": ")
            always[name] = json.loads(value)
            continue
        number, _, own = line.strip().partition(" ")
        facts, inputs = {}, {}
        for name, value in (always | json.loads(own)).items():
            if name.startswith("from "):
                inputs[renames.parameter(name.removeprefix("from "))] = [renames.labels(e) for e in _labels(value)]
            else:
                facts[renames.parameter(name)] = renames.labels(value) if isinstance(value, str) else value
        yield Stage(f"{renames.kind(kind)} {number}", renames.kind(kind), facts, inputs)
