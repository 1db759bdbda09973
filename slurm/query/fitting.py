"""Checks that a partition has nodes that are large enough, and enough of them."""

import re
from collections.abc import Iterator, Mapping

from slurm.errors import ProfileError
from slurm.profile.nearest import nearest
from slurm.profile.profile import Profile
from slurm.profile.quantities import counted
from slurm.query.facts import ClusterFacts
from slurm.query.listings import NodeType, Partition


def resource_faults(profile: Profile, partition: Partition, partitions: Mapping[str, Partition]) -> list[str]:
    """Return the requests of a profile that a partition cannot fulfill, each with the possible values.

    Args:
        profile: what is asked for.
        partition: the partition.
        partitions: all of the cluster, to say where a type of GPU is instead.
    """
    types = partition.node_types
    faults = [
        *_gpu_faults(profile, partition, partitions),
        *_feature_faults(profile, partition),
        *_size_faults(profile, partition),
    ]
    if partition.max_nodes is not None and profile.nodes > partition.max_nodes:
        faults.append(
            f"nodes: partition {partition.name} gives a job at most {counted(partition.max_nodes, 'node')}, the "
            f"profile asks for {profile.nodes}"
        )
    if faults:
        return faults
    fitting = sum(kind.nodes for kind in types if _fits(profile, kind))
    if fitting < profile.nodes:
        whole = sum(kind.nodes for kind in types)
        which = f"{whole} nodes" if fitting == whole else f"{fitting} of {whole} nodes with all that is asked for"
        faults.append(
            f"nodes: partition {partition.name} has {which}, the profile asks for {profile.nodes}"
            + ("" if fitting else f"; its nodes: {'; '.join(map(_described, types))}")
        )
    return faults


def _gpu_faults(profile: Profile, partition: Partition, partitions: Mapping[str, Partition]) -> Iterator[str]:
    wanted = profile.gpus_per_node
    if wanted == 0:
        return
    most = max((_gpus(kind, profile.gpu_type) for kind in partition.node_types), default=0)
    if most == 0:
        elsewhere = sorted(
            each.name for each in partitions.values() if any(_gpus(kind, profile.gpu_type) for kind in each.node_types)
        )
        gpus = "GPUs" if profile.gpu_type is None else f"GPUs of type `{profile.gpu_type}`"
        key = "gpus_per_task" if profile.gpu_type is None else "gpu_type"
        if elsewhere:
            hint = f"some are in {', '.join(elsewhere)}"
        else:
            hint = nearest(profile.gpu_type or "", {name for kind in partition.node_types for name in kind.gpus} - {""})
        yield f"{key}: partition {partition.name} has no {gpus}; {hint}"
    elif wanted > most:
        yield (
            f"gpus_per_task: {_workers(profile)} with {_gpus_each(profile)} each need {wanted} on "
            f"a node; a node of partition {partition.name} has {most} at most"
        )


def refuse_mixed_gpus(profile: Profile, facts: ClusterFacts) -> None:
    """Raise an error if the nodes that can take a profile have GPUs of several types, which sum in different orders.

    Raises:
        ProfileError: names the types. Where a cluster names none, nothing can be said.
    """
    if profile.gpu_type is not None or not profile.gpus_per_task:
        return
    chosen = [each for each in facts.partitions.values() if _is_chosen(each, profile)]
    fitting = [kind for partition in chosen for kind in partition.node_types if _fits(profile, kind)]
    types = sorted({name for kind in fitting for name in kind.gpus if name})
    if len(types) > 1:
        raise ProfileError(
            f"gpu_type: partition {', '.join(each.name for each in chosen)} has GPUs of the types {', '.join(types)}, "
            "and the same spec gives the same bits on one type alone: name one, or set compute.deterministic: false in "
            "the spec"
        )


def _is_chosen(partition: Partition, profile: Profile) -> bool:
    return partition.default if profile.partition is None else partition.name in profile.partition.split(",")


def _size_faults(profile: Profile, partition: Partition) -> Iterator[str]:
    most_cpus = _most((kind.cpus for kind in partition.node_types), partition.max_cpus)
    if profile.cpus_per_node > most_cpus:
        yield (
            f"cpus_per_task: {_workers(profile)} with {counted(profile.cpus_per_task, 'CPU')} each need "
            f"{profile.cpus_per_node} on a node; a node of partition {partition.name} has {most_cpus} at most"
        )
    most_memory = _most((kind.mebibytes for kind in partition.node_types), partition.max_mebibytes)
    if profile.memory_mebibytes > most_memory:
        yield (
            f"memory: {profile.memory_mebibytes} MiB is more than a node of partition {partition.name} has; it has "
            f"{most_memory} MiB at most, write {most_memory}MiB"
        )


def _workers(profile: Profile) -> str:
    return counted(profile.tasks_per_node, "worker")


def _gpus_each(profile: Profile) -> str:
    if profile.workers_per_gpu > 1:
        return f"1/{profile.workers_per_gpu} of a GPU"
    return counted(int(profile.gpus_per_task), "GPU")


def _feature_faults(profile: Profile, partition: Partition) -> Iterator[str]:
    known = {feature for kind in partition.node_types for feature in kind.features}
    for feature in _features(profile.constraint or ""):
        if feature not in known:
            hint = nearest(feature, known)
            yield f"constraint: no node of partition {partition.name} has the feature `{feature}`; {hint}"


def _fits(profile: Profile, kind: NodeType) -> bool:
    return (
        kind.cpus >= profile.cpus_per_node
        and kind.mebibytes >= profile.memory_mebibytes
        and _gpus(kind, profile.gpu_type) >= profile.gpus_per_node
        and _has_features(profile.constraint or "", kind.features)
    )


def _has_features(constraint: str, features: frozenset[str]) -> bool:
    # Brackets, counts and mixtures are left to Slurm: only profiles that are certainly impossible are refused here.
    wanted = set(_features(constraint))
    if re.fullmatch(r"[^|\[\]()*]+", constraint):
        return wanted <= features
    if re.fullmatch(r"[^&\[\]()*,]+", constraint):
        return bool(wanted & features)
    return True


def _features(constraint: str) -> list[str]:
    return [part.partition("*")[0] for part in re.split(r"[&|,()\[\]]", constraint) if part.partition("*")[0]]


def _gpus(kind: NodeType, gpu_type: str | None) -> int:
    return sum(kind.gpus.values()) if gpu_type is None else kind.gpus.get(gpu_type, 0)


def _most(sizes: Iterator[int], limit: int | None) -> int:
    largest = max(sizes, default=0)
    return largest if limit is None else min(largest, limit)


def _described(kind: NodeType) -> str:
    gpus = "".join(f", {count} {name or 'GPUs'}" for name, count in sorted(kind.gpus.items()))
    features = f" ({', '.join(sorted(kind.features))})" if kind.features else ""
    return f"{kind.nodes} with {kind.cpus} CPUs, {kind.mebibytes} MiB{gpus}{features}"
