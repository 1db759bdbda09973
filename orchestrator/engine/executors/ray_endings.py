"""Endings of calls to workers: a returned value, an error in the worker, or the death of the worker."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from orchestrator.engine.executors.ray_teams import Member
from orchestrator.stages.context.failures import FailureClass, Outcome, Status

SECONDS_TO_EXPLAIN = 10.0
"""Seconds to wait for the cause after a member of a team has lost its connection to another member."""

_LOST = {
    FailureClass.WORKER: "the worker process died",
    FailureClass.NODE: "the node of the worker was lost",
    FailureClass.MEMORY: "the worker took too much memory",
}


class MemoryWatch(Protocol):
    """Source of facts about processes that were ended because of their memory."""

    def ran_out_of_memory(self, host: str) -> bool:
        """Tell whether the processes on a node were ended because of their memory."""


@dataclass(frozen=True)
class Ending:
    """The end of a call.

    Attributes:
        outcomes: of the stages that were given; one alone where the worker died, none of a member that followed.
        died: whether the worker has died.
    """

    outcomes: tuple[Outcome, ...]
    died: bool = False

    @property
    def failure(self) -> Outcome | None:
        """The first outcome after which a team cannot go on together."""
        broken = (Status.FAILED, Status.DAMAGED_INPUT)
        return next((outcome for outcome in self.outcomes if outcome.status in broken), None)


def ending_of(call: Any, member: Member, watch: MemoryWatch) -> Ending:
    """Return the ending of a completed call.

    Args:
        call: Ray's reference to what it returns.
        member: the worker that was called.
        watch: asked about workers that died.
    """
    import ray

    try:
        found = ray.get(call)
    except ray.exceptions.OutOfMemoryError as error:
        return _death(member, FailureClass.MEMORY, error)
    except ray.exceptions.RayTaskError as error:
        return Ending((Outcome(Status.FAILED, FailureClass.CODE, str(error)),))
    except ray.exceptions.RayActorError as error:
        return _death(member, _why(member, watch), error)
    if found is None:
        return Ending(())
    return Ending(tuple(found) if isinstance(found, list) else (found,))


def cause(first: Ending, others: Mapping[Any, Member], watch: MemoryWatch) -> Outcome:
    """Return the cause of a team's failure: the first fault, even if lost connections to that member came in earlier.

    Args:
        first: the ending that showed the failure.
        others: calls to other members that were not over then.
        watch: asked about workers that died.
    """
    import ray

    failure = first.failure
    if failure is None:
        raise AssertionError("nothing failed")
    if first.died or failure.failure is not FailureClass.WORKER or not others:
        return failure
    ended, _ = ray.wait(list(others), num_returns=len(others), timeout=SECONDS_TO_EXPLAIN)
    endings = [ending_of(call, others[call], watch) for call in ended]
    said = [each.failure for each in endings if each.failure and each.failure.failure is not FailureClass.WORKER]
    deaths = [each.failure for each in endings if each.died]
    return next((each for each in (*said, *deaths) if each), failure)


def is_alive(node: str) -> bool:
    """Tell whether a node is one of Ray's."""
    import ray

    return any(each["NodeID"] == node and each["Alive"] for each in ray.nodes())


def _death(member: Member, failure: FailureClass, error: Exception) -> Ending:
    size = len(member.team.members)
    which = f" (process {member.team.members.index(member)} of a process group of {size})" if size > 1 else ""
    return Ending((Outcome(Status.FAILED, failure, f"{_LOST[failure]}{which}: {error}"),), died=True)


def _why(member: Member, watch: MemoryWatch) -> FailureClass:
    if member.introduction is None:
        return FailureClass.WORKER
    if watch.ran_out_of_memory(member.up.process["host"]):
        return FailureClass.MEMORY
    return FailureClass.WORKER if is_alive(member.up.node) else FailureClass.NODE
