"""Stages that a worker is given together: each is claimed, published and fails by itself."""

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.engine.executors.bundles import BUNDLE_SECONDS, MOST_TASKS_A_CALL, BundleSizes
from orchestrator.engine.executors.inline import InlineExecutor
from orchestrator.engine.worker.execute import StageWorker, Task
from orchestrator.stages.context.failures import FailureClass, Outcome, Status
from orchestrator.stages.context.work import Product, Work
from orchestrator.store.journal import read_journals
from orchestrator.store.stage import Stage, StageKind
from orchestrator.sweep.folder import ResultsFolder
from tests.orchestrator.engine.made_up_stages import MadeUp
from tests.orchestrator.sweeps import sweep_of

TOGETHER = StageKind(name="together", parameters=MadeUp, version=1, meaning="nothing", module=__name__, bundled=True)
OTHER = replace(TOGETHER, name="other")

ahead_of: dict[int, list[int]] = {}
"""Numbers of the stages that each stage, by its number, was told come next."""


def compute(stage: Stage[MadeUp], work: Work) -> Product:
    number = stage.parameters.number
    ahead_of[number] = [each.parameters.number for each in work.ahead]
    if number == 2:
        raise ValueError("told to fail")
    if number == 7:
        raise KeyboardInterrupt
    return Product({})


@pytest.fixture
def folder(tmp_path: Path) -> ResultsFolder:
    ahead_of.clear()
    return ResultsFolder(tmp_path / "results")


def tasks(*numbers: int) -> list[Task]:
    return [(Stage(TOGETHER, MadeUp(number)), 1, 0) for number in numbers]


def held(folder: ResultsFolder) -> set[str]:
    return set(folder.claims().held())


def names(given: list[Task]) -> set[str]:
    return {stage.stage_id for stage, _, _ in given}


def test_all_are_claimed_before_the_first_begins_and_one_that_fails_takes_no_other_with_it(folder: ResultsFolder):
    worker, given = StageWorker(sweep_of(), folder), tasks(0, 1, 2, 3, 4)
    elsewhere, finished = given[1][0], given[3][0]
    folder.claims().take(elsewhere.stage_id)
    StageWorker(sweep_of(), folder).execute(finished)
    ahead_of.clear()

    computing, ended = worker.execute_all(given), []
    for outcome in computing:
        ended.append(outcome)
        if len(ended) == 1:
            assert held(folder) == names(given[1:3]) | names(given[4:])
    assert [outcome.status for outcome in ended] == [
        Status.FINISHED, Status.BUSY, Status.FAILED, Status.EXISTING, Status.FINISHED,
    ]  # fmt: skip
    assert ended[2].failure is FailureClass.CODE
    assert ahead_of == {0: [2, 4], 2: [4], 4: []}
    assert held(folder) == {elsewhere.stage_id}
    events = [(event["event"], event["stage"]) for event in read_journals(folder.journals)]
    begun_here = [given[number][0].stage_id for number in (0, 2, 4)]
    assert [stage for event, stage in events if event == "started"] == [finished.stage_id, *begun_here]


def test_whoever_stops_within_a_bundle_leaves_the_rest_free(folder: ResultsFolder):
    given = tasks(0, 1, 3)
    computing = StageWorker(sweep_of(), folder).execute_all(given)
    assert next(computing).status is Status.FINISHED
    assert held(folder) == names(given[1:])
    computing.close()
    assert held(folder) == set()
    assert list(ahead_of) == [0]


def test_an_interrupt_within_a_stage_gives_back_the_claims_of_all(folder: ResultsFolder):
    computing = StageWorker(sweep_of(), folder).execute_all(tasks(0, 7, 8))
    next(computing)
    with pytest.raises(KeyboardInterrupt):
        next(computing)
    assert held(folder) == set()
    assert list(ahead_of) == [0, 7]


def sized(seconds: float, count: int = 1, kind: StageKind = TOGETHER) -> int:
    sizes = BundleSizes()
    assert sizes.of(kind) == 1  # until it is known how long one takes
    sizes.took(kind, [Outcome(Status.FINISHED, seconds=seconds)] * count)
    return sizes.of(kind)


@pytest.mark.parametrize(
    ("seconds", "count", "size"),
    [(0.001, 1, MOST_TASKS_A_CALL), (0.05, 4, 10), (BUNDLE_SECONDS / 3.5, 1, 3), (0.4, 1, 1), (90.0, 1, 1)],
)
def test_a_bundle_takes_about_as_long_whatever_its_stages_take(seconds: float, count: int, size: int):
    assert sized(seconds, count) == size


def test_a_run_in_one_process_computes_bundles_and_stops_between_their_stages(
    folder: ResultsFolder, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(BundleSizes, "of", lambda self, kind: 3)
    with InlineExecutor(sweep_of(), folder) as executor:
        given = [*tasks(0, 1, 3, 4), (Stage(OTHER, MadeUp(5)), 1, 0)]
        for task in given:
            executor.submit(*task)
        assert executor.capacity == 3
        found = [executor.next_outcome(None), executor.next_outcome(None)]
        assert held(folder) == names(given[2:3])
        executor.stop()
        found += [executor.next_outcome(None) for _ in given[2:]]
        assert held(folder) == set()
        assert executor.next_outcome(0.0) is None
    left, finished = Status.LEFT, Status.FINISHED
    assert [(stage, outcome.status) for stage, outcome in filter(None, found)] == [
        (stage, status) for (stage, _, _), status in zip(given, [finished, finished, left, left, left], strict=True)
    ]
    assert ahead_of == {0: [1, 3], 1: [3]}
