"""The worker processes of the Ray executor, in teams; the members of a team hold one model together."""

from dataclasses import dataclass, field
from typing import Any

from orchestrator.engine.executors.ray_actor import Introduction, Worker
from orchestrator.installation import installation
from orchestrator.sweep.folder import ResultsFolder, Sweep


@dataclass(eq=False)
class Team:
    """The workers of one process group, started and ended together; one worker where models are not sharded.

    Attributes:
        members: in the order of their ranks.
        placement: Ray's placement group, which keeps them near each other; None for a team of one.
    """

    placement: Any = None
    members: list["Member"] = field(default_factory=list)

    def disband(self) -> None:
        """Kill all members, also those that Ray can no longer reach, and release their resources."""
        import ray

        for member in self.members:
            ray.kill(member.actor)
        if self.placement is not None:
            ray.util.remove_placement_group(self.placement)

    def set_aside(self) -> None:
        """Stop computing, but keep the members' resources reserved, because one of their GPUs is broken.

        A placement group keeps the reservation by itself; a single member keeps it as long as it lives.
        """
        import ray

        for member in self.members if self.placement is not None else ():
            ray.kill(member.actor)


@dataclass(eq=False)
class Member:
    """One worker process.

    Attributes:
        actor: Ray's handle.
        team: its team.
        introduction: the facts that it reported about itself; None until it is up.
        holds: key of the stages whose common inputs it holds; None if it holds none.
    """

    actor: Any
    team: Team
    introduction: Introduction | None = None
    holds: str | None = None

    @property
    def up(self) -> Introduction:
        """The introduction of the worker, which must be up."""
        if self.introduction is None:
            raise AssertionError("a worker that is not up has nothing to do")
        return self.introduction


def start_team(sweep: Sweep, folder: ResultsFolder, size: int, gpus: float) -> Team:
    """Begin to start the workers of a team; Ray places them once it has room.

    Args:
        sweep: the sweep.
        folder: its results folder.
        size: how many.
        gpus: GPUs of each; a part of one where several share it.
    """
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    team = Team()
    if size > 1:
        bundle = {"CPU": 1.0} | ({"GPU": gpus} if gpus else {})
        # Close to each other if possible: at every layer each process sends its part of the weights to all others.
        team.placement = ray.util.placement_group([bundle] * size, strategy="PACK")
    on_a_gpu = round(1 / gpus) if 0 < gpus < 1 else 1
    job = {
        "spec": sweep.spec.model_dump(mode="json"),
        "sources": sweep.sources.to_json(),
        "folder": str(folder.root),
        "group_size": size,
        "on_a_gpu": on_a_gpu,
        "trusts_code": sweep.trusts_code,
    }
    for rank in range(size):
        options: dict[str, Any] = {"num_cpus": 1, "num_gpus": gpus, "max_restarts": 0, "max_task_retries": 0}
        if size > 1:
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
                team.placement, placement_group_bundle_index=rank
            )
        actor = ray.remote(Worker).options(**options).remote(installation().to_json(), {**job, "rank": rank})
        team.members.append(Member(actor, team))
    return team
