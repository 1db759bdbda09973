"""How a plan is worked off; an executor that only says how stages end stands in for workers."""

from collections import deque

from orchestrator.plan import Plan
from orchestrator.schedule import Schedule, missing_stages
from orchestrator.stage import Stage
from orchestrator.stages.execute import FailureClass, Outcome, Status
from orchestrator.store.artifacts import ArtifactStore
from tests.orchestrator.sweeps import Quiet, plan_of


class Told:
    """Ends every stage as it is told; a stage that waits for another run ends only after `looks` looks at it."""

    def __init__(self, plan: Plan, store: ArtifactStore, *, capacity: int = 1, looks: int = 0) -> None:
        self.capacity = capacity
        self.store = store
        self.elsewhere = {stage.stage_id: looks for stage in plan.stages if stage.kind == "capture"} if looks else {}
        self.failing: dict[str, list[FailureClass]] = {}
        self.submitted: list[str] = []
        self.timeouts: list[float | None] = []
        self._waiting: deque[Stage] = deque()

    def submit(self, stage: Stage, attempt: int) -> None:
        missing = [needed for needed in stage.needs() if not self.store.has(*needed)]
        assert not missing, "a stage is given out before its inputs are finished"
        assert len(self._waiting) < self.capacity
        self.submitted.append(stage.stage_id)
        self._waiting.append(stage)

    def next_outcome(self, timeout: float | None) -> tuple[Stage, Outcome] | None:
        self.timeouts.append(timeout)
        stage = self._waiting.popleft()
        if failures := self.failing.get(stage.stage_id):
            return stage, Outcome(Status.FAILED, failures.pop(0), "told to fail")
        if self.elsewhere.get(stage.stage_id, 0) > 0:
            self.elsewhere[stage.stage_id] -= 1
            return stage, Outcome(Status.BUSY)
        self.store.publish(stage, {}, {})
        return stage, Outcome(Status.FINISHED)

    def __enter__(self) -> "Told":
        return self

    def __exit__(self, *_: object) -> None: ...


def schedule_of(plan: Plan, store: ArtifactStore, executor: Told) -> Schedule:
    return Schedule(plan, store, executor, Quiet(), missing_stages(plan, store))


def test_every_stage_is_given_out_once_and_after_its_inputs(tmp_path):
    plan, store = plan_of(), ArtifactStore(tmp_path)
    executor = Told(plan, store, capacity=3)
    report = schedule_of(plan, store, executor).run()
    assert sorted(executor.submitted) == sorted(stage.stage_id for stage in plan.stages)
    assert (report.computed, report.failures, report.blocked) == (len(plan.stages), [], 0)
    assert set(executor.timeouts) == {None}, "with nothing computed elsewhere there is nothing to look for"


def test_stages_of_another_run_are_looked_at_again_while_workers_are_busy(tmp_path):
    plan, store = plan_of(), ArtifactStore(tmp_path)
    executor = Told(plan, store, capacity=2, looks=2)
    report = schedule_of(plan, store, executor).run()
    assert report.computed == len(plan.stages)
    assert any(timeout is not None for timeout in executor.timeouts), "waits for good although a stage may be done"


def test_a_lost_worker_costs_an_attempt_and_wrong_input_the_stage(tmp_path):
    plan, store = plan_of(), ArtifactStore(tmp_path)
    lost, wrong = (stage for stage in plan.stages if stage.kind == "capture" and stage.parameters["start"] == 0)
    executor = Told(plan, store)
    executor.failing = {lost.stage_id: [FailureClass.WORKER] * 3, wrong.stage_id: [FailureClass.INPUT]}
    report = schedule_of(plan, store, executor).run()
    assert executor.submitted.count(lost.stage_id) == 4
    assert executor.submitted.count(wrong.stage_id) == 1
    (failure,) = report.failures
    assert failure.stage is wrong
    needing = {stage.stage_id for stage in plan.stages if (wrong.kind, wrong.stage_id) in stage.needs()}
    assert report.blocked >= len(needing) > 0
    assert not needing & set(executor.submitted), "a stage that cannot have its inputs was given out"


def test_a_worker_that_is_lost_again_and_again_is_given_up(tmp_path):
    plan, store = plan_of(), ArtifactStore(tmp_path)
    first = plan.stages[0]
    executor = Told(plan, store)
    executor.failing = {first.stage_id: [FailureClass.WORKER] * 100}
    report = schedule_of(plan, store, executor).run()
    assert executor.submitted == [first.stage_id] * 4
    assert report.blocked == len(plan.stages) - 1
