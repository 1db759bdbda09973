"""Facts about a cluster, and what a user may ask of it."""

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass

from slurm.errors import CommandError
from slurm.query import listings
from slurm.query.commands import run_command
from slurm.query.listings import Association, Partition, Qos


@dataclass(frozen=True)
class Accounts:
    """A user's accounts and limits, from Slurm's accounting.

    Attributes:
        user: the user.
        default: the account that is charged where none is named.
        associations: the accounts of the user, with what each allows.
        qos: every quality of service of the cluster by its name.
        queued: jobs that the user has queued or running, by account and quality of service; a task of an array is one.
        enforced: whether Slurm refuses jobs without an association.
    """

    user: str
    default: str | None
    associations: tuple[Association, ...]
    qos: Mapping[str, Qos]
    queued: Mapping[tuple[str, str], int]
    enforced: bool

    def of(self, account: str | None) -> list[Association]:
        """Return the associations of an account, by default the user's default account."""
        return [each for each in self.associations if each.account == (account or self.default)]

    def effective_qos(self, account: str | None, qos: str | None) -> str | None:
        """Return the quality of service that a job gets; None if that is not known."""
        return qos or next((each.default_qos for each in self.of(account) if each.default_qos), None)

    def free_submissions(self, account: str | None, qos: str | None) -> int | None:
        """Return how many more jobs the user may queue; None for any number."""
        account = account or self.default
        qos = self.effective_qos(account, qos)
        in_account = sum(count for (of, _), count in self.queued.items() if of == account)
        in_qos = sum(count for (_, of), count in self.queued.items() if of == qos)
        free = [
            each.max_submissions - in_account for each in self.of(account) if each.max_submissions is not None
        ]  # fmt: skip
        limit = self.qos[qos].max_submissions if qos is not None and qos in self.qos else None
        if limit is not None:
            free.append(limit - in_qos)
        return max(0, min(free)) if free else None


@dataclass(frozen=True)
class ClusterFacts:
    """A cluster as its login node describes it.

    Attributes:
        version: of Slurm, such as 22.05.8.
        cluster: its name.
        max_array_size: most tasks of an array; 0 if there are no arrays.
        accounting: whether ended jobs are kept in a database (`sacct`).
        partitions: by name.
        accounts: of this user; None without accounting, and while its database does not answer.
    """

    version: str
    cluster: str
    max_array_size: int
    accounting: bool
    partitions: Mapping[str, Partition]
    accounts: Accounts | None

    def free_submissions(self, account: str | None, qos: str | None) -> int | None:
        """Return how many more jobs the user may queue; None for any number, or if that is not known."""
        return self.accounts.free_submissions(account, qos) if self.accounts else None


def read_facts() -> ClusterFacts:
    """Ask Slurm for its facts; three commands, and three more where accounting exists.

    Raises:
        NoSlurmError: there is no Slurm on this machine.
        CommandError: it does not answer.
    """
    settings = listings.settings(run_command("scontrol", "show", "config"))
    cluster = settings.get("ClusterName", "")
    accounting = "slurmdbd" in settings.get("AccountingStorageType", "")
    return ClusterFacts(
        version=settings["SLURM_VERSION"],
        cluster=cluster,
        max_array_size=listings.max_array_size(settings),
        accounting=accounting,
        partitions=listings.partitions(
            run_command("scontrol", "--all", "--oneliner", "show", "partition"),
            run_command("sinfo", "--all", "--exact", "--noheader", f"--format={listings.NODE_TYPES}"),
        ),
        accounts=_accounts(cluster, "associations" in settings.get("AccountingStorageEnforce", ""))
        if accounting
        else None,
    )


def _accounts(cluster: str, enforced: bool) -> Accounts | None:
    user = pwd.getpwuid(os.geteuid()).pw_name
    show = ("sacctmgr", "--noheader", "--parsable2", "show")
    try:
        # All else can be checked without the database, so that the wait for it is shorter than for the controller.
        listed = run_command(
            *show, "user", "withassoc", "where", f"name={user}", f"cluster={cluster}",
            f"format={listings.ASSOCIATIONS}", patience=5,
        )  # fmt: skip
        qualities = run_command(*show, "qos", f"format={listings.QUALITIES}", patience=5)
    except CommandError as error:
        if error.passes:
            return None
        raise
    queued = run_command("squeue", "--all", "--noheader", "--array", f"--user={user}", f"--format={listings.QUEUED}")
    default, associations = listings.associations(listed)
    return Accounts(user, default, associations, listings.qualities(qualities), listings.queued(queued), enforced)
