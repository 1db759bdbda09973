"""State that an allocation leaves to the next: claims given back, and which stages ran out of memory."""

import time
from pathlib import Path

import pytest

from orchestrator.cluster.records import Submission, write_submission
from orchestrator.cluster.release import ran_out_of_memory, release
from orchestrator.engine.executors.inline import InlineExecutor
from orchestrator.engine.schedule import Schedule
from orchestrator.plan.plan import make_plan
from orchestrator.stages.context.failures import Outcome, Status
from orchestrator.store.claims import ClaimBook
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.survey import surveys
from tests.orchestrator.sweeps import Quiet, make_sweep, run_spec


@pytest.fixture
def folder(tmp_path: Path) -> ResultsFolder:
    return ResultsFolder(run_spec(make_sweep(tmp_path)).plan.sweep.spec.folder)


def claim(folder: ResultsFolder, stage_id: str, job: str, node: str) -> None:
    book: ClaimBook = folder.claims()
    book.process |= {"slurm_job": job, "slurm_restart": None, "host": node}
    assert book.take(stage_id) is not None


def held(folder: ResultsFolder) -> set[str]:
    return {path.stem for path in folder.claims().root.glob("[!.]*")}


def test_an_allocation_gives_back_its_own_claims_on_nodes_where_nothing_of_it_runs(
    folder: ResultsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    for stage, job, node in (("a", "12", "n1"), ("b", "12", "n2"), ("c", "13", "n1")):
        claim(folder, stage, job, node)
    release(folder, ["n1"], [])
    assert held(folder) == {"b", "c"}
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")  # what an earlier start of the job holds may be alive
    release(folder, ["n2"], [])
    assert held(folder) == {"b", "c"}


def test_what_the_dead_were_writing_is_removed_and_nothing_else(
    folder: ResultsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    of_the_dead = folder.root / "artifacts/capture/.a.json.n1-4026531836.4711-1.12r0.0123abcd.tmp"
    others = [
        folder.root / f"artifacts/capture/.a.json.{whose}.0123abcd.tmp"
        for whose in ("n2-4026531836.4711-1.12r0", "n1-4026531836.4712-1.12r1", "n1-4026531836.4712-1.13r0")
    ]
    for path in (of_the_dead, *others):
        path.touch()
    release(folder, ["n1"], [])
    assert not of_the_dead.exists()
    assert all(path.exists() for path in others)


def test_a_stage_that_ended_its_node_for_memory_is_begun_with_half_the_batch(
    folder: ResultsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    sweep = folder.existing()
    plan = make_plan(sweep, surveys(sweep, folder.artifacts()))
    greedy, other = [stage for stage in plan.stages if stage.kind == "capture"][:2]
    write_submission(folder, Submission("x", "tiny", (1,), {}, True, time=time.time()))
    claim(folder, greedy.stage_id, "12", "n1")
    claim(folder, "tables", "12", "n1")
    claim(folder, other.stage_id, "12", "n2")
    release(folder, ["n1", "n2"], ["n1"])
    assert ran_out_of_memory(folder) == {greedy.stage_id: 1}

    begun: dict[str, int] = {}

    class Noting(InlineExecutor):
        def submit(self, stage, attempt, halvings) -> None:
            begun[stage.stage_id] = halvings
            super().submit(stage, attempt, halvings)

        def next_outcome(self, timeout):
            stage, _, _ = self._waiting.popleft()
            return stage, Outcome(Status.FINISHED)

    missing = [greedy, other]
    before = ran_out_of_memory(folder)
    Schedule(plan, folder.artifacts(), Noting(sweep, folder), Quiet(), missing, out_of_memory=before).run()
    assert begun == {greedy.stage_id: 1, other.stage_id: 0}

    # Whoever submits the sweep again may have given it more memory.
    write_submission(folder, Submission("y", "tiny", (1,), {}, True, time=time.time()))
    assert ran_out_of_memory(folder) == {}
