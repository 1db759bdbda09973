"""Checks that a cluster can fulfill a profile, made before anything is submitted."""

import re
from collections.abc import Iterator
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from slurm.errors import CommandError, ProfileError
from slurm.profile.nearest import nearest
from slurm.profile.profile import Profile
from slurm.profile.quantities import counted, duration
from slurm.query.commands import run_command, run_command_for_messages
from slurm.query.facts import Accounts, ClusterFacts
from slurm.query.fitting import resource_faults
from slurm.query.listings import Partition
from slurm.query.shared_folder import folder_faults

_NOW_ONLY = "Requested node configuration is not available"
"""Message of `sbatch --test-only` that also stands for nodes that are only down or drained at the moment."""


def check_profile(profile: Profile, facts: ClusterFacts, *, results: Path) -> None:
    """Refuse a profile that the cluster cannot fulfill, and a results folder that its nodes cannot see.

    Raises:
        ProfileError: lists every fault, each with the nearest valid name or the largest possible value.
    """
    faults = [
        *_version_faults(profile, facts),
        *_account_faults(profile, facts.accounts),
        *_partition_faults(profile, facts),
        *folder_faults(profile, results),
    ]
    if faults:
        heading = f"the profile does not fit the cluster {facts.cluster} ({len(faults)} fault"
        raise ProfileError(
            "\n".join([f"{heading}{'s' if len(faults) > 1 else ''}):", *(f"  {each}" for each in faults)])
        )


def refuse_exclusion(profile: Profile, facts: ClusterFacts) -> None:
    """Refuse a profile that excludes so many nodes that too few are left; Slurm would treat them as busy.

    Raises:
        ProfileError: says how many are left.
        CommandError: Slurm does not answer, or cannot read the list.
    """
    if profile.exclude is None:
        return
    excluded = set(run_command("scontrol", "show", "hostnames", profile.exclude).split())
    nodes = nodes_of(profile, facts)
    left = len(nodes - excluded)
    if left < profile.nodes:
        raise ProfileError(
            f"exclude: `{profile.exclude}` leaves {left} of {counted(len(nodes), 'node')} of partition "
            f"{_partitions_of(profile, facts)}, the "
            f"profile asks for {profile.nodes}"
        )


def nodes_of(profile: Profile, facts: ClusterFacts) -> set[str]:
    """Return the names of the nodes of a profile's partitions. Raises CommandError if Slurm does not answer."""
    chosen = _partitions_of(profile, facts)
    return set(run_command("sinfo", "--noheader", "--Node", f"--partition={chosen}", "--format=%N").split())


def _partitions_of(profile: Profile, facts: ClusterFacts) -> str:
    default = ",".join(partition.name for partition in facts.partitions.values() if partition.default)
    return profile.partition or default


def try_script(script: str) -> str:
    """Have Slurm check a script without submitting it (`sbatch --test-only`); return what it says about its start.

    Raises:
        ProfileError: it would refuse the script.
        CommandError: Slurm does not answer.
    """
    try:
        said = run_command_for_messages("sbatch", "--test-only", input=script)
    except CommandError as error:
        if error.passes:
            raise
        if _NOW_ONLY in error.said:
            return "no nodes can take this at the moment: enough of them are down, drained or reserved; it would wait"
        raise ProfileError(
            f"Slurm would refuse the job: {error.said}; change the profile; `--dry-run` shows the script"
        ) from None
    return said.strip().removeprefix("sbatch: ")


def _version_faults(profile: Profile, facts: ClusterFacts) -> Iterator[str]:
    if profile.slurm is None:
        return
    try:
        version = Version(re.sub(r"[^\d.].*", "", facts.version))
    except InvalidVersion:
        return
    if not SpecifierSet(profile.slurm).contains(version):
        yield (
            f"slurm: this cluster runs Slurm {facts.version}, the profile was written for {profile.slurm}; see whether "
            "it still holds, then change `slurm`"
        )


def _account_faults(profile: Profile, accounts: Accounts | None) -> Iterator[str]:
    if accounts is None:
        return
    names = [each.account for each in accounts.associations]
    if not names and (accounts.enforced or profile.account is not None):
        wanted = f" for `{profile.account}`" if profile.account else ""
        yield (
            f"account: {accounts.user} has no account on this cluster{wanted}; "
            + ("ask its administrators for one" if accounts.enforced else "remove `account`: it is not needed")
        )
    elif profile.account is not None and profile.account not in names:
        yield f"account: {accounts.user} has no account `{profile.account}`; {nearest(profile.account, names)}"
    elif profile.qos is not None:
        yield from _qos_faults(profile.qos, profile, accounts)
    qos = accounts.effective_qos(profile.account, profile.qos)
    limit = accounts.qos[qos].max_minutes if qos is not None and qos in accounts.qos else None
    if limit is not None and profile.minutes > limit:
        yield f"time_limit: {duration(profile.minutes)} is more than the {duration(limit)} that qos {qos} allows"


def _qos_faults(qos: str, profile: Profile, accounts: Accounts) -> Iterator[str]:
    if qos not in accounts.qos:
        yield f"qos: there is no quality of service `{qos}`; {nearest(qos, accounts.qos)}"
        return
    usable = {name for each in accounts.of(profile.account) for name in each.qos}
    if usable and qos not in usable:
        account = profile.account or accounts.default
        yield f"qos: account {account} may not use `{qos}`; it may use {', '.join(sorted(usable))}"


def _partition_faults(profile: Profile, facts: ClusterFacts) -> list[str]:
    if profile.partition is None:
        chosen = [partition.name for partition in facts.partitions.values() if partition.default]
        if not chosen:
            return [
                f"partition: the cluster has no default partition; name one of {', '.join(sorted(facts.partitions))}"
            ]
    else:
        chosen = profile.partition.split(",")
    unknown = [name for name in chosen if name not in facts.partitions]
    if unknown:
        return [f"partition: there is no partition `{name}`; {nearest(name, facts.partitions)}" for name in unknown]
    # With several partitions, the job runs on any that can take it.
    faults = [_faults_on(profile, facts.partitions[name], facts) for name in chosen]
    return min(faults, key=len)


def _faults_on(profile: Profile, partition: Partition, facts: ClusterFacts) -> list[str]:
    return [*_entry_faults(profile, partition, facts.accounts), *resource_faults(profile, partition, facts.partitions)]


def _entry_faults(profile: Profile, partition: Partition, accounts: Accounts | None) -> Iterator[str]:
    if partition.state in ("DRAIN", "INACTIVE"):
        yield f"partition: {partition.name} takes no jobs at the moment (state {partition.state}); choose another"
    account, qos = profile.account, profile.qos
    if accounts is not None:
        account, qos = account or accounts.default, accounts.effective_qos(account, qos)
    for key, kind, name in (("account", "accounts", account), ("qos", "qos", qos)):
        allowed, denied = partition.allowed.get(kind), partition.denied.get(kind, frozenset())
        if name is None:
            continue
        if allowed is not None and name not in allowed:
            yield f"{key}: partition {partition.name} does not take {key} `{name}`; {nearest(name, allowed)}"
        elif name in denied:
            yield f"{key}: partition {partition.name} does not take {key} `{name}`; choose another"
    if partition.max_minutes is not None and profile.minutes > partition.max_minutes:
        yield (
            f"time_limit: {duration(profile.minutes)} is more than the {duration(partition.max_minutes)} that "
            f"partition {partition.name} allows"
        )
