"""Workers after failures: smaller batches after too little memory, nothing after wrong input or code."""

import errno
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetune.data import tokens
from ntk_dist.kernel import gram
from orchestrator.engine.executors.inline import InlineExecutor
from orchestrator.engine.run import resolve
from orchestrator.engine.schedule import Report, Schedule
from orchestrator.engine.worker.execute import StageWorker
from orchestrator.errors import SweepError
from orchestrator.plan.plan import Plan, make_plan, missing_stages
from orchestrator.results.tables.schema import TABLES
from orchestrator.spec import read_spec
from orchestrator.stages.context import blocks
from orchestrator.stages.context.failures import FailureClass, Outcome, Status
from orchestrator.stages.context.work import Product, Work
from orchestrator.store.arrays import ArrayReader
from orchestrator.store.claims import Claim
from orchestrator.store.journal import read_journals
from orchestrator.store.stage import Stage, StageKind
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.survey import keep_surveys, surveys
from tests.orchestrator.sweeps import Quiet, make_sweep, results_of, run_spec

SWEEP: dict[str, Any] = {
    "head": {"kind": "ridge", "in_kernel": False},
    "kernel": {"outputs": "margin", "eigenvectors": True},
    "grid.n_train": [20],
    "grid.seeds": [0, 1],
    "grid.layer_sets": ["all_layers", {"groups": [["0.query"]]}],
    "adapter.rank": 1,
    "results.predictions": True,
    "compute.shard_examples": 16,
    "compute.batch_tokens": 16,
}
"""Batches of two to four examples, a dual and a primal layer set."""


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The spec of a sweep that had all the memory it wanted."""
    path = make_sweep(tmp_path_factory.mktemp("expected"), SWEEP, model=tiny_model)
    run_spec(path)
    return path


@pytest.fixture
def spec(tmp_path: Path, tiny_model: Path) -> Path:
    return make_sweep(tmp_path, SWEEP, model=tiny_model)


def events_of(spec: Path, kind: str) -> list[dict[str, Any]]:
    journals = read_journals(ResultsFolder(read_spec(spec).folder).journals)
    return [event for event in journals if event.get("kind") == kind]


def limited(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, size: Callable[..., int], most: int) -> None:
    """Let a function have no memory for more than `most` of what it is given."""
    function = getattr(owner, name)

    def call(*arguments: Any, **options: Any) -> Any:
        if size(arguments[0]) > most:
            raise MemoryError(f"no room for {size(arguments[0])}")
        return function(*arguments, **options)

    monkeypatch.setattr(owner, name, call)


def two_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, tokens, "pad", len, 2)


def one_example(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, tokens, "pad", len, 1)


def four_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.stages.gram.compute.COLUMNS_AT_ONCE", 8)
    limited(monkeypatch, gram, "made_features", lambda rows: int(rows.shape[1]), 4)


def two_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    width = 16  # parameters of 0.query that are not zero by construction
    monkeypatch.setattr("orchestrator.stages.solve.solver.BLOCK_BYTES", 3 * 8 * width * 4)
    limited(monkeypatch, blocks, "made_features", len, 2)


@pytest.mark.parametrize(
    ("limit", "kind", "halvings"),
    [
        (two_examples, "capture", 1),
        (one_example, "capture", 2),
        (one_example, "head", 2),
        (four_columns, "gram", 1),
        (two_rows, "solve", 1),
    ],
)
def test_a_stage_that_ran_out_of_memory_is_computed_in_smaller_batches_and_says_so(
    limit: Callable[[pytest.MonkeyPatch], None],
    kind: str,
    halvings: int,
    spec: Path,
    expected: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limit(monkeypatch)
    ending = run_spec(spec)
    assert ending.report.failures == []
    assert_equal_to_rounding(spec, expected)

    events = events_of(spec, kind)
    failed = [event for event in events if event["event"] == "failed"]
    assert {event["failure"] for event in failed} == {"out of memory"}
    assert {event["halvings"] for event in failed} == set(range(halvings))
    for name in ("started", "finished"):
        assert max(event["halvings"] for event in events if event["event"] == name) == halvings
    store = ResultsFolder(read_spec(spec).folder).artifacts()
    stored = [store.read(kind, stage_id).provenance["halvings"] for stage_id in store.finished(kind)]
    assert max(stored) == halvings

    cells = results_of(spec).cells.to_pandas()
    above = {"gram": cells["n_layers"] == 2, "solve": cells["n_layers"] == 1}
    assert set(cells[above.get(kind, cells["n_layers"] > 0)]["halvings"]) == {halvings}
    assert set(results_of(expected).cells.to_pandas()["halvings"]) == {0}


def assert_equal_to_rounding(spec: Path, expected: Path) -> None:
    assert results_of(spec).names == results_of(expected).names
    for name in results_of(expected).names:
        kept = [column.name for column in TABLES[name].columns if not column.provenance]
        found, wanted = (results_of(path).table(name).to_arrow(kept).to_pylist() for path in (spec, expected))
        assert len(found) == len(wanted)
        for ours, theirs in zip(found, wanted, strict=True):
            for column in kept:
                same = ours[column] == theirs[column]  # names too
                assert same or ours[column] == pytest.approx(theirs[column], rel=1e-8, abs=1e-12), column


def test_cells_say_only_what_happened_below_them(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pad = tokens.pad
    failures = iter([MemoryError("for once")])

    def call(sequences: Any, **options: Any) -> Any:
        for error in failures:
            raise error
        return pad(sequences, **options)

    monkeypatch.setattr("finetune.model.dry_run.dry_run", lambda *_, **__: None)  # the stages are to fail
    monkeypatch.setattr(tokens, "pad", call)
    run_spec(spec)
    cells = results_of(spec).cells.to_pandas()
    assert {seed: set(rows["halvings"]) for seed, rows in cells.groupby("seed")} == {0: {1}, 1: {0}}


def test_a_stage_that_never_fits_is_given_up_with_advice(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, tokens, "pad", len, 0)
    report = run_spec(spec).report
    assert {failure.failure for failure in report.failures} == {FailureClass.MEMORY}
    assert "lower compute.batch_tokens" in report.failures[0].message
    started = [event for event in events_of(spec, "head") if event["event"] == "started"]
    tries = [(event["attempt"], event["halvings"]) for event in started]
    assert sorted(tries) == sorted([(1, 0), (2, 1), (3, 2)] * len(SWEEP["grid.seeds"]))


# --- what counts as too little memory


def raise_of_mapping(*_: object) -> Any:
    raise OSError(errno.ENOMEM, "Cannot allocate memory")


@pytest.fixture
def ready(spec: Path) -> Plan:
    """The plan of a sweep whose results folder is prepared, as `run` does before stages are computed."""
    folder = ResultsFolder(read_spec(spec).folder)
    sweep = resolve(read_spec(spec), spec.parent, folder)
    found = surveys(sweep, folder.artifacts())
    folder.write(sweep)
    keep_surveys(sweep, found, folder.artifacts())
    return make_plan(sweep, found)


def folder_of(plan: Plan) -> ResultsFolder:
    return ResultsFolder(plan.sweep.spec.folder)


def worker_of(plan: Plan) -> StageWorker:
    return StageWorker(plan.sweep, folder_of(plan))


def computes(monkeypatch: pytest.MonkeyPatch, compute: Callable[[Stage, Work], Product]) -> None:
    monkeypatch.setattr(StageKind, "compute", lambda kind, stage, work: compute(stage, work))


@pytest.mark.parametrize(
    "allocate",
    [
        lambda: torch.empty(10**15),
        lambda: np.empty(10**15),
        raise_of_mapping,
    ],
    ids=["torch", "numpy", "mapping"],
)
def test_too_little_memory_is_told_from_wrong_code(
    allocate: Callable[[], object], ready: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compute(stage: Stage, work: Work) -> Product:
        allocate()
        return Product({})

    computes(monkeypatch, compute)
    assert worker_of(ready).execute(ready.stages[0]).failure is FailureClass.MEMORY


def test_an_array_for_which_there_is_no_memory_is_not_damaged(ready: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = worker_of(ready)
    dataset, head = ready.stages[:2]
    assert worker.execute(dataset).status is Status.FINISHED
    for way in ("array", "read"):
        monkeypatch.setattr(ArrayReader, way, raise_of_mapping)
    outcome = worker.execute(head)
    assert (outcome.status, outcome.failure) == (Status.FAILED, FailureClass.MEMORY)


# --- what is wrong for good


def fail_with(error: Exception) -> Callable[[Stage, Work], Product]:
    def compute(stage: Stage, work: Work) -> Product:
        raise error

    return compute


def compute_missing(plan: Plan) -> Report:
    """Work a plan off as one of several allocations does that share its results folder."""
    store = folder_of(plan).artifacts()
    with InlineExecutor(plan.sweep, folder_of(plan)) as executor:
        return Schedule(plan, store, executor, Quiet(), missing_stages(plan, store)).run()


@pytest.mark.parametrize(
    ("error", "failure"),
    [(SweepError("row 3 holds nan"), FailureClass.INPUT), (KeyError("oops"), FailureClass.CODE)],
    ids=["input", "code"],
)
def test_what_is_wrong_for_good_is_tried_once_by_all_runs_together(
    error: Exception, failure: FailureClass, ready: Plan, spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computes(monkeypatch, fail_with(error))
    first, second = compute_missing(ready), compute_missing(ready)
    datasets = [stage for stage in ready.stages if stage.kind == "dataset"]
    for report in (first, second):
        assert [each.stage for each in report.failures] == datasets
        assert {each.failure for each in report.failures} == {failure}
        assert all(str(error) in each.message for each in report.failures)
        assert (report.blocked, report.open) == (len(ready.stages) - len(datasets), 0)
    events = [event["event"] for event in events_of(spec, "dataset")]
    assert events == ["started", "failed"] * len(datasets)


def test_a_run_that_the_user_starts_tries_again_what_was_wrong(
    ready: Plan, spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        computes(patched, fail_with(KeyError("a library is missing")))
        assert compute_missing(ready).failures
    ending = run_spec(spec)
    assert ending.report.failures == []
    assert ending.n_cells == ending.plan.n_cells


def test_nobody_can_begin_a_stage_between_its_failure_and_its_refusal(
    ready: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing, other, stage = worker_of(ready), worker_of(ready), ready.stages[0]
    meanwhile: list[Outcome] = []

    def look() -> None:
        # A thread of its own, as another process would: a worker computes one stage at a time.
        looking = threading.Thread(target=lambda: meanwhile.append(other.execute(stage)))
        looking.start()
        looking.join()

    release = failing._claims.release

    def released(claim: Claim) -> None:
        look()
        release(claim)
        look()

    monkeypatch.setattr(failing._claims, "release", released)
    computes(monkeypatch, fail_with(KeyError("oops")))
    failing.execute(stage)
    assert [outcome.status for outcome in meanwhile] == [Status.BUSY, Status.FAILED]
    assert meanwhile[1].failure is FailureClass.CODE
    events = [event["event"] for event in read_journals(folder_of(ready).journals)]
    assert events == ["started", "failed"]


@pytest.mark.parametrize("failure", [MemoryError("no room"), OSError(errno.EIO, "the disk is away")])
def test_only_what_fails_everywhere_is_refused(
    failure: Exception, ready: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    computes(monkeypatch, fail_with(failure))
    stage = ready.stages[0]
    worker_of(ready).execute(stage)
    refused = folder_of(ready).refusals().of(stage.stage_id)
    assert (refused is not None) == isinstance(failure, OSError)
