"""Parsers of the output of Slurm's programs about a cluster; nothing here runs a program."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from slurm.profile.quantities import minutes_of

NODE_TYPES = "%R|%D|%c|%m|%G|%f"
"""Format for `sinfo`: partition, nodes, CPUs, MiB, generic resources, features."""

ASSOCIATIONS = "defaultaccount,account,partition,qos,defaultqos,maxsubmit"
QUALITIES = "name,maxsubmitpu,grpsubmit,maxwall"
QUEUED = "%a|%q"


@dataclass(frozen=True)
class NodeType:
    """Nodes of a partition that are alike.

    Attributes:
        nodes: how many.
        cpus: CPUs of each.
        mebibytes: memory of each in MiB.
        gpus: GPUs of each by type; "" for GPUs without one.
        features: what a constraint can ask for.
    """

    nodes: int
    cpus: int
    mebibytes: int
    gpus: Mapping[str, int]
    features: frozenset[str]


@dataclass(frozen=True)
class Partition:
    """A partition; limits that are None do not exist.

    Attributes:
        name: its name.
        default: whether jobs go there that name none.
        state: UP, DOWN (queues jobs without starting them), DRAIN or INACTIVE (take none).
        node_types: its nodes.
        max_minutes: longest time limit.
        max_nodes: most nodes of a job.
        max_cpus: most CPUs of a job on a node.
        max_mebibytes: most memory of a job on a node.
        allowed: by "accounts" and "qos", the names that may use it; a kind that is missing is not restricted.
        denied: likewise, the names that may not.
    """

    name: str
    default: bool
    state: str
    node_types: tuple[NodeType, ...]
    max_minutes: int | None
    max_nodes: int | None
    max_cpus: int | None
    max_mebibytes: int | None
    allowed: Mapping[str, frozenset[str]]
    denied: Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Association:
    """An account of a user, on one partition or on all; `max_submissions` None is any number."""

    account: str
    partition: str | None
    qos: frozenset[str]
    default_qos: str | None
    max_submissions: int | None


@dataclass(frozen=True)
class Qos:
    """A quality of service; limits that are None do not exist."""

    max_submissions: int | None
    max_minutes: int | None


def settings(text: str) -> dict[str, str]:
    """Read `scontrol show config`."""
    return {key: value.strip() for key, value in re.findall(r"(?m)^(\S+)\s+= (.*)$", text)}


def max_array_size(settings: Mapping[str, str]) -> int:
    """Return the most tasks that an array can have: as many as it has numbers, and fewer where that is limited too."""
    numbers = int(settings.get("MaxArraySize", "1001"))
    tasks = re.search(r"max_array_tasks=(\d+)", settings.get("SchedulerParameters", ""))
    return min(numbers, int(tasks[1])) if tasks else numbers


def partitions(described: str, nodes: str) -> dict[str, Partition]:
    """Read `scontrol --oneliner show partition`, and `sinfo` with the format NODE_TYPES."""
    types: dict[str, list[NodeType]] = {}
    for line in nodes.splitlines():
        name, count, cpus, memory, resources, features = (part.strip() for part in line.split("|"))
        types.setdefault(name, []).append(
            NodeType(int(count), _number(cpus) or 0, _number(memory) or 0, _gpus(resources), _names(features))
        )
    found = (dict(re.findall(r"(?:^|\s)(\w+)=(\S*)", line)) for line in described.splitlines())
    return {each["PartitionName"]: _partition(each, types) for each in found if "PartitionName" in each}


def _partition(fields: Mapping[str, str], types: Mapping[str, list[NodeType]]) -> Partition:
    name = fields["PartitionName"]
    kinds = {"accounts": "Accounts", "qos": "Qos"}
    return Partition(
        name=name,
        default=fields.get("Default") == "YES",
        state=fields.get("State", "UP"),
        node_types=tuple(types.get(name, ())),
        max_minutes=_minutes(fields.get("MaxTime", "")),
        max_nodes=_number(fields.get("MaxNodes", "")),
        max_cpus=_number(fields.get("MaxCPUsPerNode", "")),
        max_mebibytes=_number(fields.get("MaxMemPerNode", "")),
        allowed=_restrictions(fields, {kind: f"Allow{word}" for kind, word in kinds.items()}),
        denied=_restrictions(fields, {kind: f"Deny{word}" for kind, word in kinds.items()}),
    )


def _restrictions(fields: Mapping[str, str], keys: Mapping[str, str]) -> dict[str, frozenset[str]]:
    return {kind: _names(fields[key]) for kind, key in keys.items() if fields.get(key, "ALL") != "ALL"}


def associations(text: str) -> tuple[str | None, tuple[Association, ...]]:
    """Read the default account and the accounts of a user from `sacctmgr` with the format ASSOCIATIONS."""
    rows = [line.split("|") for line in text.splitlines() if line.strip()]
    found = tuple(
        Association(account, partition or None, _names(qos), default_qos or None, _number(submissions))
        for _, account, partition, qos, default_qos, submissions in rows
        if account
    )
    return next((row[0] for row in rows if row[0]), None), found


def qualities(text: str) -> dict[str, Qos]:
    """Read every quality of service from `sacctmgr` with the format QUALITIES."""
    found = {}
    for line in text.splitlines():
        name, per_user, of_all, wall = line.split("|")
        limits = [limit for limit in (_number(per_user), _number(of_all)) if limit is not None]
        found[name] = Qos(min(limits, default=None), _minutes(wall))
    return found


def queued(text: str) -> dict[tuple[str, str], int]:
    """Count the jobs of `squeue` with the format QUEUED by account and quality of service."""
    rows = (line.strip().rpartition("|") for line in text.splitlines() if line.strip())
    return dict(Counter((account, qos) for account, _, qos in rows))


def _gpus(resources: str) -> dict[str, int]:
    found: Counter[str] = Counter()
    for kind, count in re.findall(r"(?:^|,)gpu:(?:([^:(),]+):)?(\d+)", resources):
        found[kind] += int(count)
    return dict(found)


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split(",")) - {"", "(null)", "N/A"}


def _number(text: str) -> int | None:
    found = re.match(r"\s*(\d+)", text)
    return int(found[1]) if found else None


def _minutes(text: str) -> int | None:
    return minutes_of(text) if re.search(r"\d", text) else None
