"""Requirements of a development cluster on the machine."""

import os
import shutil

from slurm.devcluster.configuration import INSIDE
from slurm.devcluster.errors import CannotRunHereError
from slurm.devcluster.settings import ClusterSettings

PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
"""Folders in which daemons are looked for, because not every shell of root has the system's on its path."""

_PROGRAMS = {
    "slurm-wlm": ("slurmctld", "slurmd", "sbatch", "scontrol"),
    "munge": ("munged", "munge"),
    "iproute2": ("ip",),
    "util-linux": ("unshare", "nsenter", "setpriv"),
}
_ACCOUNTING_PROGRAMS = {
    "slurmdbd": ("slurmdbd",),
    "mariadb-server": ("mariadbd", "mariadb-install-db", "mariadb"),
}


def refuse_what_cannot_run(settings: ClusterSettings) -> None:
    """Check for root's rights and for the programs; whether namespaces may be made is only known by making them.

    Raises:
        CannotRunHereError: Something is missing; the message says how to get it.
    """
    refuse_other_users()
    wanted = _PROGRAMS | (_ACCOUNTING_PROGRAMS if settings.accounting else {})
    missing = {program: package for package, programs in wanted.items() for program in programs if not find(program)}
    if missing:
        packages = " ".join(sorted(set(missing.values())))
        raise CannotRunHereError(
            f"programs of a development cluster are missing: {', '.join(missing)}; on Debian and Ubuntu: "
            f"sudo apt-get install --no-install-recommends {packages}"
        )
    if not INSIDE.is_dir():
        raise CannotRunHereError(
            f"there is no folder {INSIDE}, which Slurm's packages bring along and the cluster's folder is put over in "
            f"its namespaces; make it: sudo mkdir {INSIDE}"
        )


def refuse_other_users() -> None:
    """Check for root's rights.

    Raises:
        CannotRunHereError: This process has not got them.
    """
    if os.geteuid() != 0:
        raise CannotRunHereError(
            "a development cluster needs the rights of root: its daemons run jobs of several users in namespaces of "
            "their own; run the command with sudo"
        )


def find(program: str) -> str | None:
    """Return the path of a program; None if it is not found."""
    return shutil.which(program, path=PATH)
