"""The errors of this package; each message says what failed and what to do next."""


class SlurmError(Exception):
    """Base of every error here that is explained to the user."""


class NoSlurmError(SlurmError):
    """This machine has no Slurm, or its Slurm knows no cluster."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"there is no Slurm on this machine: {why}; submit from a login node of the cluster, or try "
            "`ntksweep devcluster up`, which starts a small one here"
        )


class CommandError(SlurmError):
    """A command of Slurm failed; the message quotes it, what it said, and the next step.

    Attributes:
        passes: whether the failure was of a kind that passes by itself, such as a controller that restarts.
    """

    def __init__(self, command: str, said: str, advice: str, *, passes: bool = False) -> None:
        super().__init__(f"`{command}` failed: {said}; {advice}")
        self.said = said
        self.passes = passes


class ProfileError(SlurmError):
    """The profile does not fit the cluster; the message lists every fault with what would fit."""


class SubmissionLimitError(SlurmError):
    """The cluster lets this user queue no further job."""
