"""Time before a worker computes its first stage: Ray's start, and the loading of libraries."""

from dataclasses import dataclass

from orchestrator.plan.plan import Plan, missing_stages
from orchestrator.store.history import History
from orchestrator.sweep.folder import ResultsFolder

WORKERS_UP = {"ray": 7.0, "inline": 0.0}
"""Seconds from the beginning of a run to its first worker, by executor, where no run of the folder has taken them."""

LIBRARIES = 6.5
"""Seconds in which a worker loads torch, transformers and peft, where none has measured them.

Both are what runs took on two cores of a server, beside some other programs; docs/benchmarks.md has more under "Start".
"""


@dataclass(frozen=True)
class Starting:
    """Seconds that pass before stages are computed.

    Attributes:
        workers_up: from the beginning of a run to its first worker: Ray's start, and that of a process.
        libraries: for loading libraries in a worker; all workers do so at the same time.
        measured: whether a run of the folder has measured both.
    """

    workers_up: float
    libraries: float
    measured: bool

    @property
    def seconds(self) -> float:
        """Both together."""
        return self.workers_up + self.libraries


def starting(plan: Plan, folder: ResultsFolder) -> Starting | None:
    """Return the time that the next run of a plan takes to start; None if no stage is missing.

    It is that of the folder's last run by the same executor, as its journals have it, else a usual one.
    """
    if not missing_stages(plan, folder.artifacts()):
        return None
    executor = plan.sweep.spec.compute.executor
    history = History(folder.journals)
    history.update()
    taken = history.starting(executor)
    return Starting(*taken, measured=True) if taken else Starting(WORKERS_UP[executor], LIBRARIES, measured=False)


def starting_in_allocation(plan: Plan, folder: ResultsFolder) -> Starting | None:
    """Return what an allocation usually takes to start, once Slurm has begun it; None if no stage is missing.

    How long it waits for that, only the cluster can tell; runs on this machine say nothing of its nodes.
    """
    if not missing_stages(plan, folder.artifacts()):
        return None
    return Starting(WORKERS_UP["ray"], LIBRARIES, measured=False)
