"""The errors of everything that has to do with Slurm; each message says what failed and what to do next."""


class SlurmError(Exception):
    """Base of every error here that is explained to the user."""
