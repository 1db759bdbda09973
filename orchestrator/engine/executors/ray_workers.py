"""The Ray executor: one actor a worker, on a Ray that this process starts or on that of an allocation."""

import logging
import math
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import islice, takewhile
from pathlib import Path
from types import TracebackType
from typing import Any

from orchestrator.engine.executors.bundles import BundleSizes
from orchestrator.engine.executors.ray_connection import RayConnection
from orchestrator.engine.executors.ray_endings import Ending, cause, ending_of, is_alive
from orchestrator.engine.executors.ray_teams import Member, Team, start_team
from orchestrator.engine.executors.ray_watch import ADVICE
from orchestrator.engine.worker.execute import Task
from orchestrator.errors import GpuFailedError, OtherInstallationError, RayFailedError, WorkerStartError
from orchestrator.hidden_packages import hidden
from orchestrator.stages.context.failures import FailureClass, Outcome, Status
from orchestrator.store.stage import Stage
from orchestrator.sweep.folder import ResultsFolder, Sweep

logger = logging.getLogger(__name__)

SECONDS_TO_DIE = 10.0
"""Seconds to wait until killed workers are gone, before their claims are left to become stale."""

MOST_FAILED_STARTS = 4
"""Consecutive workers that may end before they are up, until the run gives up."""

LOOK_SECONDS = 0.5
"""Pause between checks that Ray is still running; calls to workers of a lost Ray never end."""

UP_SECONDS = 300.0
"""Seconds without any worker while some are being started; Python can load slowly from a shared file system."""


class RayExecutor:
    """Gives stages to workers; a worker that dies is replaced if Ray has room for it, and its stage reported as lost.

    Workers come in teams that hold one model together. Stages that run the model are computed by a team, all
    others by any of its members alone.
    """

    def __init__(self, sweep: Sweep, folder: ResultsFolder, connection: RayConnection) -> None:
        self._sweep = sweep
        self._folder = folder
        self._connection = connection
        self._team_size = sweep.spec.group_size
        self._starting: dict[Any, Member] = {}
        self._idle: list[Member] = []
        self._waiting: deque[Task] = deque()
        self._in_flight: dict[Any, tuple[Member, list[Task]]] = {}
        self._following: dict[Any, Member] = {}
        self._ended: deque[tuple[Stage, Outcome]] = deque()
        self._bundles = BundleSizes()
        self._stopped = False
        self._n_teams = 0
        self._aside: list[tuple[Team, Outcome]] = []
        self._latest: Stage | None = None
        self._failed_starts = 0
        self._seconds_without_worker = 0.0

    @property
    def capacity(self) -> int:
        """Stages that the running workers can hold at once: several each, for kinds that take very little time."""
        up = len(self._idle) + len(self._in_flight) + len(self._following)
        if self._latest is None:
            return up
        return up // self._team_size if self._needs_team(self._latest) else up * self._bundles.of(self._latest.of)

    def __enter__(self) -> "RayExecutor":
        if message := hidden([str(Path.cwd())]):  # Ray's workers look there first
            raise WorkerStartError(message)
        workers = self._connection.__enter__()
        try:
            self._start_teams(workers)
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def _start_teams(self, workers: int) -> None:
        if workers < self._team_size:
            raise WorkerStartError(
                f"there are {workers} workers, and a process group needs {self._team_size}: lower sharding.group_size, "
                "or give the sweep more workers"
            )
        self._n_teams = workers // self._team_size
        logger.info("%d workers, %s GPUs each", workers, self._connection.gpus_per_worker)
        for _ in range(self._n_teams):
            self._start_team()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._end_stages_in_flight()
        finally:
            self._idle, self._in_flight, self._following, self._starting = [], {}, {}, {}
            self._waiting.clear()
            self._ended.clear()
            self._connection.__exit__(kind, error, trace)

    def submit(self, stage: Stage, attempt: int, halvings: int) -> None:
        """Accept a stage, which the next idle worker gets."""
        self._latest = stage
        self._waiting.append((stage, attempt, halvings))

    def stop(self) -> None:
        """Give out no further stage."""
        self._stopped = True

    def next_outcome(self, timeout: float | None) -> tuple[Stage, Outcome] | None:
        """Wait for the first worker that is done, or lost; return None after `timeout` seconds, or if one is up."""
        self._restart_if_lost()
        self._give_out()
        if self._ended:
            return self._ended.popleft()
        self._refuse_to_go_on_without_gpus()
        if not (self._in_flight or self._following or self._starting):
            time.sleep(timeout or 0.0)
            return None
        ended = self._wait(timeout)
        if not self._restart_if_lost():
            for done in ended:
                if done in self._starting:
                    self._started(done)
                elif done in self._following:
                    self._followed(done)
                else:
                    self._take_back(done)
        return self._ended.popleft() if self._ended else None

    def _wait(self, timeout: float | None) -> list[Any]:
        """Return a list of the first call that ends; an empty one after `timeout` seconds, or if Ray was lost."""
        import ray

        awaited = [*self._in_flight, *self._following, *self._starting]
        left = math.inf if timeout is None else timeout
        while True:
            ended, _ = ray.wait(awaited, num_returns=1, timeout=min(LOOK_SECONDS, left))
            left -= LOOK_SECONDS
            if ended or left <= 0 or self._connection.lost():
                return list(ended)
            self._refuse_to_wait_for_ever()

    def _refuse_to_wait_for_ever(self) -> None:
        if self._idle or self._in_flight or self._following:
            self._seconds_without_worker = 0.0
            return
        # Not by the clock, which continues while Slurm or a user has suspended this process.
        self._seconds_without_worker += LOOK_SECONDS
        if self._seconds_without_worker > UP_SECONDS:
            raise RayFailedError(f"no worker process was up after {UP_SECONDS:.0f} s; {ADVICE}")

    def _refuse_to_go_on_without_gpus(self) -> None:
        if not self._aside or len(self._aside) < self._n_teams:
            return
        members = [each for team, _ in self._aside for each in team.members if each.introduction is not None]
        hosts = sorted({each.up.process["host"] for each in members})
        raise GpuFailedError(
            f"no GPU is left: {self._aside[-1][1].message}; finished stages are kept: leave {', '.join(hosts)} out (on "
            "a cluster by the profile's `exclude`) or have it repaired, then go on with the same command"
        )

    def _restart_if_lost(self) -> bool:
        """Start Ray again if it was lost; the stages of its workers have failed, and new workers replace them."""
        program = self._connection.lost()
        if program is None:
            return False
        outcome = Outcome(Status.FAILED, FailureClass.NODE, f"Ray's {program} ended, and with it every worker")
        logger.warning("%s", outcome.message)
        tasks = [task for _, given in self._in_flight.values() for task in given]
        self._end_workers_of_lost()
        self._connection.start_again()
        self._ended.extend((stage, outcome) for stage, _, _ in tasks)
        for _ in range(self._n_teams - len(self._aside)):
            self._start_team()
        return True

    def _end_workers_of_lost(self) -> None:
        """Kill the workers of a Ray that was lost, and give back their claims."""
        self._end_directly([*self._idle, *self._called().values()])
        self._idle, self._in_flight, self._following, self._starting = [], {}, {}, {}
        self._bundles.clear()

    def _end_directly(self, members: Sequence[Member]) -> bool:
        """Kill workers without Ray, and give back their claims; return False if they cannot be reached from here."""
        if not self._connection.end_workers([member.up.process["process"] for member in members]):
            return False
        for member in members:
            self._folder.claims().release_all(member.up.process)
        return True

    def _called(self) -> dict[Any, Member]:
        """Return the calls for stages that have not ended, each with the worker that was called."""
        return {call: worker for call, (worker, _) in self._in_flight.items()} | self._following

    def _needs_team(self, stage: Stage) -> bool:
        return self._team_size > 1 and stage.runs_model

    def _give_out(self) -> None:
        """Share the waiting stages among idle workers, once the schedule knows of all ended stages."""
        if self._stopped:
            self._ended.extend((stage, Outcome(Status.LEFT)) for stage, _, _ in self._waiting)
            self._waiting.clear()
        while self._waiting and self._idle and not self._ended:
            self._put_first_what_is_held()
            if self._needs_team(self._waiting[0][0]):
                # Stages behind it wait too, so that the members of a team become idle together.
                if not self._give_to_team():
                    return
                continue
            tasks = [self._waiting.popleft() for _ in range(self._count_alike())]
            worker = self._idle.pop(self._suited(tasks[0][0]))
            self._in_flight[worker.actor.execute.remote(tasks)] = (worker, tasks)

    def _put_first_what_is_held(self) -> None:
        """Let a stage go first that shares something with what an idle worker holds, which other stages would drop."""
        held = {worker.holds for worker in self._idle} - {None}
        for number, (stage, _, _) in enumerate(self._waiting):
            if stage.together is not None and stage.together.key in held:
                task = self._waiting[number]
                del self._waiting[number]
                self._waiting.appendleft(task)
                return

    def _count_alike(self) -> int:
        """Return how many of the stages that wait first go to one worker in one call."""
        first = self._waiting[0][0]
        if first.together is not None:
            return 1  # the next one may share something with what another worker holds
        # All workers share what shares work, so that none has the last of it while others wait.
        workers = len(self._idle) + (len(self._in_flight) if first.of.bundled else 0)
        most = min(self._bundles.of(first.of), -(-len(self._waiting) // workers))
        alike = takewhile(lambda task: task[0].of == first.of and task[0].together is None, self._waiting)
        return len(list(islice(alike, most)))

    def _suited(self, stage: Stage) -> int:
        """Return the position among idle workers of the one that holds what a stage shares with others.

        Where there is none, one that holds nothing, else the last. From now on it holds that.
        """
        key = stage.together.key if stage.together else None
        held = [worker.holds for worker in self._idle]
        found = next((held.index(each) for each in (key, None) if each in held), len(held) - 1)
        self._idle[found].holds = key
        return found

    def _give_to_team(self) -> bool:
        """Give the first waiting stage to a team that is idle; return whether there is one."""
        idle = [each.team for each in self._idle if each is each.team.members[0]]
        idle = [team for team in idle if all(member in self._idle for member in team.members)]
        if not idle:
            return False
        task = self._waiting.popleft()
        key = task[0].together.key if task[0].together else None
        team = next((each for each in idle if key and each.members[0].holds == key), idle[0])
        first, *others = team.members
        first.holds = key
        self._idle = [member for member in self._idle if member.team is not team]
        self._in_flight[first.actor.lead.remote(task)] = (first, [task])
        for member in others:
            self._following[member.actor.follow.remote(first.up.address)] = member
        return True

    def _take_back(self, done: Any) -> None:
        worker, tasks = self._in_flight[done]
        ending = ending_of(done, worker, self._connection)
        together = self._needs_team(tasks[0][0])
        if ending.died or (together and ending.failure):
            # The other members of the team wait for data that will not come.
            self._team_failed(done, worker, ending)
            return
        del self._in_flight[done]
        outcomes = ending.outcomes if len(ending.outcomes) == len(tasks) else ending.outcomes * len(tasks)
        if tasks[0][0].together is None:
            self._bundles.took(tasks[0][0].of, outcomes)
        self._idle.append(worker)
        self._ended.extend(zip((stage for stage, _, _ in tasks), outcomes, strict=True))
        if spent := next((outcome for outcome in outcomes if outcome.spent), None):
            ended = Outcome(
                Status.FAILED, FailureClass.WORKER, "its process group was ended with another process of it"
            )
            self._end_team(worker.team, ended, spent if spent.broken_gpu else None)

    def _followed(self, done: Any) -> None:
        """Check how a member of a team ended its part of a stage."""
        member = self._following[done]
        ending = ending_of(done, member, self._connection)
        if ending.failure:
            self._team_failed(done, member, ending)
            return
        del self._following[done]
        self._idle.append(member)

    def _team_failed(self, done: Any, member: Member, ending: Ending) -> None:
        """End the team of a member whose call failed; the stages that it held have failed for the same reason."""
        others = {call: each for call, each in self._calls_to(member.team).items() if call != done}
        failure = cause(ending, others, self._connection)
        self._end_team(member.team, failure, failure if failure.broken_gpu else None)

    def _calls_to(self, team: Team) -> dict[Any, Member]:
        return {call: member for call, member in self._called().items() if member.team is team}

    def _start_team(self) -> None:
        team = start_team(self._sweep, self._folder, self._team_size, self._connection.gpus_per_worker)
        self._starting |= {member.actor.introduce.remote(): member for member in team.members}

    def _started(self, introduction: Any) -> None:
        import ray

        member = self._starting.pop(introduction)
        try:
            found = ray.get(introduction)
            if isinstance(found, str):
                raise OtherInstallationError(found)
            member.introduction = found
            self._failed_starts = 0
            logger.info("a worker is up: process %d on %s", member.up.process["process"], member.up.process["host"])
            if member.up.unfit is not None:
                self._end_team(member.team, member.up.unfit, member.up.unfit)
            else:
                self._idle.append(member)
        except ray.exceptions.RayActorError as error:
            self._failed_starts += 1
            if self._failed_starts > MOST_FAILED_STARTS:
                raise RayFailedError(f"no worker process can be started: {error}") from None
            self._end_team(member.team, Outcome(Status.FAILED, FailureClass.WORKER, str(error)))

    def _end_team(self, team: Team, outcome: Outcome, broken_gpu: Outcome | None = None) -> None:
        """Kill a team, report `outcome` for the stages of its members, and start another team in its place.

        A team that was ended by a broken GPU is not replaced, so that no other worker gets the GPU.
        """
        logger.warning("workers are ended: %s: %s", outcome.failure, outcome.message)
        self._bundles.clear()  # one stage for each call identifies a stage that kills workers
        if broken_gpu is not None:
            team.set_aside()
            self._aside.append((team, broken_gpu))
        else:
            team.disband()
        self._release_claims(self._calls_to(team))
        self._idle = [member for member in self._idle if member.team is not team]
        self._starting = {call: member for call, member in self._starting.items() if member.team is not team}
        self._following = {call: member for call, member in self._following.items() if member.team is not team}
        for call in self._calls_to(team):
            _, tasks = self._in_flight.pop(call)
            self._ended.extend((stage, outcome) for stage, _, _ in tasks)
        if broken_gpu is None:
            self._start_team()

    def _end_stages_in_flight(self) -> None:
        """Kill the workers that still compute, and give their claims back once they are dead."""
        import ray

        calls = self._called()
        # Ray itself may just be ending, and never answer: timeout, systemd and others signal each process of a run.
        if self._end_directly([*calls.values(), *(self._idle if self._connection.lost() else ())]):
            return
        for worker in calls.values():
            ray.kill(worker.actor)
        self._release_claims(calls)

    def _release_claims(self, calls: Mapping[Any, Member]) -> None:
        """Give back the claims of workers that were killed while they were called, once they are dead."""
        import ray

        if not calls:
            return
        ended, _ = ray.wait(list(calls), num_returns=len(calls), timeout=SECONDS_TO_DIE)
        for call in ended:
            # Its node saw the process end. For a process on a lost node this is unknown: its claim has to become stale.
            if is_alive(calls[call].up.node):
                self._folder.claims().release_all(calls[call].up.process)
