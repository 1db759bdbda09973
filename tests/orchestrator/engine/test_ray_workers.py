"""The executor on Ray, with stages that take no time, that take long, and that end their worker."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.engine.executors import bundles, ray_teams
from orchestrator.engine.executors.bundles import MOST_TASKS_A_CALL
from orchestrator.engine.executors.local_ray import LocalRay
from orchestrator.engine.executors.ray_workers import RayExecutor
from orchestrator.errors import GpuFailedError
from orchestrator.stages.context.failures import FailureClass, Outcome, Status
from orchestrator.store.journal import read_journals
from orchestrator.store.stage import Stage, StageKind
from orchestrator.sweep.folder import ResultsFolder
from tests.orchestrator.engine.made_up_stages import BREAKING, DEADLY, QUICK, SLOW, MadeUp, Worker
from tests.orchestrator.sweeps import sweep_of
from tests.root import ROOT

pytestmark = pytest.mark.ray


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ResultsFolder:
    monkeypatch.setattr(ray_teams, "Worker", Worker)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return ResultsFolder(tmp_path / "results")


@pytest.fixture
def executor(folder: ResultsFolder) -> Iterator[RayExecutor]:
    with RayExecutor(sweep_of(), folder, LocalRay(2)) as started:
        while started.capacity < 2:
            started.next_outcome(None)
        yield started


def compute_missing(executor: RayExecutor, stages: list[Stage]) -> list[tuple[Stage, Outcome]]:
    """Give stages to an executor as a schedule does: never more than it has room for."""
    waiting, ended, in_flight = list(stages), [], 0
    while waiting or in_flight:
        while waiting and in_flight < executor.capacity:
            executor.submit(waiting.pop(0), 1, 0)
            in_flight += 1
        if (outcome := executor.next_outcome(None)) is not None:
            ended.append(outcome)
            in_flight -= 1
    return ended


def stages(kind: StageKind, count: int) -> list[Stage]:
    return [Stage(kind, MadeUp(number)) for number in range(count)]


def test_every_stage_is_computed_once_and_several_at_once_where_they_take_no_time(
    executor: RayExecutor, folder: ResultsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "SHORT_SECONDS", 5.0)  # whatever else this machine is doing
    monkeypatch.setattr(bundles, "LONG_SECONDS", 60.0)
    ended = compute_missing(executor, stages(QUICK, 200))
    assert sorted(stage.parameters.number for stage, _ in ended) == list(range(200))
    assert {outcome.status for _, outcome in ended} == {Status.FINISHED}
    finished = [event["stage"] for event in read_journals(folder.journals) if event["event"] == "finished"]
    assert len(finished) == len(set(finished)) == 200
    assert executor.capacity == 2 * MOST_TASKS_A_CALL
    # A stage of another kind may take long: whoever is told to stop must not have many of them in hand.
    executor.submit(stages(SLOW, 1)[0], 1, 0)
    assert executor.capacity == 2
    assert executor.next_outcome(None) is not None


def test_stages_that_take_long_are_handed_out_one_by_one(executor: RayExecutor) -> None:
    ended = compute_missing(executor, stages(SLOW, 8))
    assert {outcome.status for _, outcome in ended} == {Status.FINISHED}
    assert executor.capacity == 2


def test_a_dead_workers_stages_are_lost_its_claims_are_free_and_another_takes_its_place(
    executor: RayExecutor, folder: ResultsFolder
) -> None:
    compute_missing(executor, stages(QUICK, 100))
    ((_, outcome),) = compute_missing(executor, stages(DEADLY, 1))
    assert (outcome.status, outcome.failure) == (Status.FAILED, FailureClass.WORKER)
    assert list(folder.claims().root.iterdir()) == []
    while executor.capacity < 2:
        executor.next_outcome(None)
    assert {outcome.status for _, outcome in compute_missing(executor, stages(SLOW, 4))} == {Status.FINISHED}


def test_what_is_in_flight_at_the_end_is_killed_and_its_claim_given_back(folder: ResultsFolder) -> None:
    with RayExecutor(sweep_of(), folder, LocalRay(1)) as executor:
        while not executor.capacity:
            executor.next_outcome(None)
        executor.submit(stages(SLOW, 1)[0], 1, 0)
        assert executor.next_outcome(0.0) is None
        deadline = time.monotonic() + 60
        while not list(folder.claims().root.glob("[!.]*")):
            assert time.monotonic() < deadline
    assert list(folder.claims().root.glob("[!.]*")) == []


SLICES = ("MIG-2d7ee6a7-9d29-5ea9-8a2b-3e6ba1c7f9a6", "MIG-7ebc6cd7-6ac4-5d4b-a1a2-4d0f7bc38f7f")
OF_ANOTHER_KIND = "MIG-1c1b3a4e-22d0-5c8e-9a53-0f1d6a0f5a11"


def test_workers_share_gpus_and_one_that_breaks_is_used_no_more(
    folder: ResultsFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join([OF_ANOTHER_KIND, *SLICES]))
    monkeypatch.setenv("UNFIT_GPU", OF_ANOTHER_KIND)

    def seen(ended: list[tuple[Stage, Outcome]]) -> dict[int, str]:
        """Return the GPUs that workers saw, by their processes."""
        assert {outcome.status for _, outcome in ended} == {Status.FINISHED}
        read = [folder.artifacts().open(stage.kind, stage.stage_id).facts for stage, _ in ended]
        assert {facts["PYTORCH_ALLOC_CONF"] for facts in read} == {"expandable_segments:True"}
        return {facts["process"]: facts["CUDA_VISIBLE_DEVICES"] for facts in read}

    with RayExecutor(sweep_of(), folder, LocalRay(6, gpus=3, workers_per_gpu=2)) as executor:
        while executor.capacity < 4:
            executor.next_outcome(None)
        before = seen(compute_missing(executor, stages(SLOW, 20)))
        assert sorted(before.values()) == sorted([*SLICES, *SLICES])

        (tmp_path / "to break 1").touch()
        breaking = Stage(BREAKING, MadeUp(gpus=str(tmp_path)))
        ((_, outcome),) = compute_missing(executor, [breaking])
        assert outcome.broken_gpu
        assert outcome.message.endswith(" failed: CUDA error: uncorrectable ECC error encountered")
        (broken,) = tmp_path.glob("* broke *")
        seen(compute_missing(executor, [breaking]))  # elsewhere
        after = seen(compute_missing(executor, [Stage(SLOW, MadeUp(100 + number)) for number in range(9)]))
        assert executor.capacity == 3
        assert after.items() < before.items()
        assert before.keys() - after.keys() == {int(broken.name.split()[0])}

        for number in range(3):
            (tmp_path / f"to break {number}").touch()
        with pytest.raises(
            GpuFailedError, match=r"no GPU is left: the GPU of .* ECC error .* by the profile's `exclude`"
        ):
            compute_missing(executor, [Stage(BREAKING, MadeUp(number, str(tmp_path))) for number in range(12)])
