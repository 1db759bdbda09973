"""Sweeps whose model is divided: the numbers of whole models, twice the same bits, and groups that lose a process."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from orchestrator.results.loading import load
from orchestrator.store.journal import read_journals
from tests.faults.conftest import SWEEP, NewSweep
from tests.faults.driving import Command, ntksweep, wait_until
from tests.faults.journal_proof import prove_nothing_was_computed_twice
from tests.faults.tables import assert_same_tables, checksums, numbers
from tests.orchestrator.sweeps import make_sweep
from tests.root import ROOT

pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.xdist_group("groups")]

PAIR = {"sharding": {"group_size": 2}, "compute.executor": "ray", "compute.workers": 2}
SHORTEST = {"grid.seeds": [0], "head": {"kind": "ridge"}, "grid.layer_sets": ["all_layers"]}


@pytest.fixture(scope="module")
def sharded(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of the small sweep, captured by one group of two processes."""
    return finished(tmp_path_factory.mktemp("sharded"), shared, "stored")


@pytest.fixture(scope="module")
def resident(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, with rows that stay in the memory of the two processes."""
    return finished(tmp_path_factory.mktemp("resident"), shared, "resident")


def finished(folder: Path, shared: Path, rows: str) -> Path:
    changes = SWEEP | {"task.data": str(shared / "data.parquet"), "compute.rows": rows} | PAIR
    make_sweep(folder, changes, model=shared / "model")
    answer = ntksweep("run", "sweep.yaml", folder=folder)
    assert answer.status == 0, answer.output
    return folder / "results"


@pytest.mark.parametrize("rows", ["sharded", "resident"])
def test_a_sharded_model_gives_the_tables_of_an_unsharded_one(
    rows: str, undisturbed: Path, request: pytest.FixtureRequest
):
    sharded: Path = request.getfixturevalue(rows)
    assert captures(sharded) == (0 if rows == "resident" else captures(undisturbed))
    columns = ["sigma_max", "trace", "train_loss", "eval_loss", "parameter_distance"]
    found = load(sharded).table("cells").to_pandas()
    whole = load(undisturbed).table("cells").to_pandas()
    for column in columns:
        assert found[column].to_numpy() == pytest.approx(whole[column].to_numpy(), rel=2e-5), column
    predictions = [load(each).table("predictions").to_pandas()["prediction"] for each in (sharded, undisturbed)]
    assert predictions[0].to_numpy() == pytest.approx(predictions[1].to_numpy(), rel=1e-4, abs=2e-5)


@pytest.mark.parametrize(("rows", "kind"), [("stored", "capture"), ("resident", "gram")])
def test_a_process_killed_in_the_middle_ends_its_group_and_another_group_goes_on(
    rows: str, kind: str, new_sweep: NewSweep, tmp_path: Path, request: pytest.FixtureRequest
):
    sharded: Path = request.getfixturevalue("sharded" if rows == "stored" else "resident")
    before = shared_memory()
    command = Command("run", new_sweep(PAIR | {"compute.rows": rows}), folder=tmp_path)
    followers: list[psutil.Process] = []

    def following() -> bool:
        assert command.running
        followers[:] = [each for each in children(command.pid) if "Worker.follow" in title(each)]
        return bool(followers)

    def suspended_in_a_stage() -> bool:
        followers[0].suspend()  # to look around takes longer than the stages that are left
        time.sleep(0.5)  # the first one gets no further than where it needs the other
        kinds = [(event["event"], event["kind"]) for event in events(tmp_path) if "stage" in event]
        if kinds.count(("started", kind)) > kinds.count(("finished", kind)):
            return True
        followers[0].resume()
        time.sleep(0.1)
        return False

    wait_until(following, pause=0.1)  # each look goes through all processes, which takes a processor's time
    # The first two are measured before more are handed out.
    wait_until(lambda: artifacts(tmp_path / "results", kind) >= 3)
    wait_until(suspended_in_a_stage)
    workers = [each for each in children(command.pid) if "Worker." in title(each)]
    listening = {c.laddr.port for each in workers for c in each.net_connections("tcp") if c.status == "LISTEN"}
    followers[0].kill()
    killed = time.time()

    def going_on() -> bool:
        return any(event["event"] == "started" and event["time"] > killed for event in events(tmp_path))

    wait_until(going_on, pause=0.1)
    assert time.time() - killed < 60
    answer = command.wait()
    assert answer.status == 0, answer.output
    assert "worker lost; trying again" in answer.output
    assert_same_tables(tmp_path / "results", numbers(sharded))
    assert checksums(tmp_path / "results") == checksums(sharded)
    prove_nothing_was_computed_twice(tmp_path / "results")
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive
    still = {c.laddr.port for c in psutil.net_connections("tcp") if c.status == "LISTEN"}
    assert not listening & still
    assert shared_memory() <= before


def test_without_ray_torchrun_starts_the_group(new_sweep: NewSweep, tmp_path: Path):
    spec = new_sweep(PAIR | SHORTEST | {"compute.executor": "inline", "compute.workers": None})
    alone = ntksweep("run", spec, folder=tmp_path)
    assert alone.status == 2
    assert "torchrun --nproc-per-node 2" in alone.output
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "orchestrator"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for _ in range(2):  # the second finds it finished, and its processes part at once
        found = subprocess.run(
            [*launch, "run", str(spec)],
            cwd=tmp_path,
            env=environment,
            text=True,
            capture_output=True,
            timeout=300,
            check=False,
        )
        assert found.returncode == 0, found.stderr
        assert "3 of 3 cells" in found.stdout
    whole = new_sweep(SHORTEST, folder=tmp_path / "whole")
    answer = ntksweep("run", whole, folder=tmp_path / "whole")
    assert answer.status == 0, answer.output
    losses = [
        load(each).table("cells").to_pandas()["eval_loss"].to_numpy()
        for each in (tmp_path / "results", whole.parent / "results")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=2e-5)


def shared_memory() -> set[str]:
    """Return what lies in shared memory, but for the semaphores of Python itself, which other tests make and remove."""
    return {path.name for path in Path("/dev/shm").iterdir() if not path.name.startswith("sem.")}


def children(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def events(folder: Path) -> list[dict[str, object]]:
    return read_journals(folder / "results/journal")


def captures(results: Path) -> int:
    return artifacts(results, "capture")


def artifacts(results: Path, kind: str) -> int:
    return len(list((results / "artifacts" / kind).glob("*.json")))
