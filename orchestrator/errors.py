"""The errors that a user of ntksweep can meet, each with the exit status that the command gives for it."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit statuses of the command, with their meanings; scripts may rely on them."""

    OK = 0
    FAILED_STAGES = 1
    WRONG_INPUT = 2
    UNFINISHED = 3
    STORAGE = 4
    NO_RAY = 5
    HUNG_UP = 129
    INTERRUPTED = 130
    READER_GONE = 141
    TERMINATED = 143


class SweepError(Exception):
    """Base of every error that ntksweep explains to its user; the message says what to do next."""

    exit_code = ExitCode.WRONG_INPUT

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows in place of a traceback: the message, which says what to do."""
        return [f"{type(self).__name__}: {self}"]


class OfSpecError(SweepError):
    """Base of the errors that a value of the spec can cause.

    Attributes:
        said: the message alone.
        key: the dotted key whose value is the cause; empty if there is no such key.
        task: the task of the grid that has the key, if it is one of `task`.
        place: what stands before that key: the file and its line; empty until `naming_lines` fills it in.
    """

    def __init__(self, said: str, *, key: str = "", task: str | None = None) -> None:
        super().__init__(said)
        self.said, self.key, self.task = said, key, task
        self.place = ""

    def __str__(self) -> str:
        return f"{self.place}{self.key}: {self.said}" if self.key else self.said


class SpecError(OfSpecError):
    """The spec is not valid: an unknown key, a value out of range, a file that is not YAML."""


class ProfileFileError(SweepError):
    """The file of a cluster profile is not valid: an unknown key, a value out of range, a file that is not YAML."""


class SourceError(OfSpecError):
    """The model or the data that the spec names cannot be found or read."""


class UntrustedCodeError(SourceError):
    """The spec asks for code that comes with the model, and the command line does not allow it."""


class ChangedError(SweepError):
    """The results folder holds a sweep whose numbers differ from what the spec asks for now."""


class ResultsError(SweepError):
    """A folder is not a results folder, or its tables cannot be read."""


class NotExportedError(SweepError):
    """A trained cell cannot be written as an adapter of peft."""


class BudgetError(OfSpecError):
    """A stage cannot fit the memory budget, or the results cannot fit the disk."""


class OutdatedError(SweepError):
    """Python or a library is too old, or one that a feature needs is missing."""


class OtherInstallationError(SweepError):
    """The processes of a sweep run different versions of ntksweep."""


class WorkerStartError(SweepError):
    """Worker processes end before they can compute anything."""


class RayFailedError(SweepError):
    """Ray does not start, does not respond, or was lost repeatedly; finished stages are kept."""

    exit_code = ExitCode.NO_RAY


class GpuFailedError(SweepError):
    """No working GPU of a run is left; finished stages are kept."""

    exit_code = ExitCode.FAILED_STAGES


class OtherGpuError(SweepError):
    """A GPU is of another kind than the GPUs that computed the numbers of a results folder."""


class StorageError(SweepError):
    """The results folder cannot be written: the disk is full, or the folder is read-only."""

    exit_code = ExitCode.STORAGE


class DamagedArtifactError(SweepError):
    """An artifact on disk does not match its checksum.

    Attributes:
        kind: the stage kind of the artifact.
        stage_id: the identity of the stage that made it.
    """

    def __init__(self, kind: str, stage_id: str, reason: str) -> None:
        super().__init__(
            f"the artifact {kind}/{stage_id} is damaged ({reason}); `ntksweep run` sets it aside and computes it again"
        )
        self.kind = kind
        self.stage_id = stage_id
        self.reason = reason

    def __reduce__(self) -> tuple[type["DamagedArtifactError"], tuple[str, str, str]]:
        return type(self), (self.kind, self.stage_id, self.reason)


class BrokenBoundError(Exception):
    """A proven bound does not hold: an error in ntksweep itself, so that the stage fails with the class `code`."""
