"""Errors of a development cluster."""

from slurm.errors import SlurmError


class DevClusterError(SlurmError):
    """Base of the errors of a development cluster."""


class CannotRunHereError(DevClusterError):
    """This machine or this user cannot run a development cluster."""


class AlreadyUpError(DevClusterError):
    """A cluster is up in this folder, or is being started there."""


class NotUpError(DevClusterError):
    """No cluster is up in this folder."""


class FolderTakenError(DevClusterError):
    """The folder holds something other than a development cluster."""


class DaemonError(DevClusterError):
    """A daemon does not start, answer or end."""


class CommandFailedError(DevClusterError):
    """A command inside the cluster ended with an error."""
