"""A process with another ntksweep than the driver of its sweep is told with both versions, both places and the fix."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster.logs import end_reason
from orchestrator.engine import torchrun
from orchestrator.engine.executors import ray_teams
from orchestrator.errors import OtherInstallationError
from orchestrator.installation import Installation, check_command, difference, installation
from orchestrator.process_log import PACKAGES
from orchestrator.store.files import host_name
from orchestrator.sweep.folder import ResultsFolder
from slurm.profile.profile import Profile
from slurm.submit.script import CONFIGURATION_FAULT, setup_lines
from tests.forked_group import run_forked_group
from tests.orchestrator.sweeps import make_sweep, ntksweep, spec_of
from tests.root import ROOT

HERE = Installation("1.0", "numerics1", "code1", "/home/ann/ntksweep", "3.11.7", "n1")


# --- two installations


@pytest.mark.parametrize("change", [{"place": "/opt/ntksweep"}, {"host": "n2"}, {"python": "3.12.1"}])
def test_the_same_code_may_be_anywhere(change: dict[str, str]) -> None:
    assert difference(HERE, replace(HERE, **change), who="a worker on n2") is None


@pytest.mark.parametrize("change", [{"version": "1.1"}, {"numerics": "numerics2"}, {"code": "code2"}])
def test_other_code_elsewhere_is_told_with_both_versions_both_places_and_the_fix(change: dict[str, str]) -> None:
    other = replace(HERE, place="/opt/ntksweep", host="n2", **change)
    message = difference(HERE, other, who="a worker on n2")
    assert message is not None
    assert message.startswith(f"a worker on n2 runs {other}, and the driver of this run {HERE}; install the same")
    for said in (*change.values(), "1.0", "/opt/ntksweep on n2", "/home/ann/ntksweep on n1", "`virtual_environment`"):
        assert said in message


def test_files_that_were_changed_meanwhile_are_told_as_such() -> None:
    message = difference(HERE, replace(HERE, code="code2"), who="a worker on n1") or ""
    assert "changed since the run began: run the same command again" in message
    assert "pip install" not in message
    on_nfs_or_not = difference(HERE, replace(HERE, code="code2", host="n2"), who="a worker on n2") or ""
    assert "run the same command again; or each machine has its own: install" in on_nfs_or_not


def test_an_installation_of_any_version_can_be_read() -> None:
    assert Installation.from_json(json.loads(json.dumps(HERE.to_json()))) == HERE
    assert Installation.from_json({"version": "0.0", "new": "x"}).code == "unknown"


# --- workers and groups


@pytest.mark.ray
def test_a_worker_of_another_version_ends_the_run_before_it_computes(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_sweep(tmp_path, {"compute.executor": "ray", "compute.workers": 1}, model=tiny_model)
    driver = replace(installation(), version="9.9", code="feedc0de", place="/home/ann/ntksweep")
    monkeypatch.setattr(ray_teams, "installation", lambda: driver)
    answer = ntksweep("run", spec)
    assert answer.status == 2
    said = " ".join(answer.errors.split())
    assert f"error: a worker on {host_name()} runs {installation()}, and the driver of this run {driver};" in said
    assert "Traceback" not in said
    assert not list((tmp_path / "results/artifacts").glob("dataset/*"))


def _refused() -> str:
    """Begin an inline run in a process of a group; return why it is refused."""
    if os.environ["RANK"] == "1":
        torchrun.installation = lambda: replace(HERE, version="1.1", host="n2")
    else:
        torchrun.installation = lambda: HERE
    try:
        with torchrun.launched_group(spec_of({"sharding.group_size": 2, "model.dtype": "float32"})):
            return ""
    except OtherInstallationError as error:
        return str(error)


def test_a_process_of_a_group_with_another_version_is_refused_by_all() -> None:
    first, second = run_forked_group(2, _refused)
    assert first == second
    assert re.match(r"process 1 of the group runs ntksweep 1\.1 .* on n2, .* the driver .* ntksweep 1\.0 ", first)


# --- allocations


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another place with the same code."""
    place = tmp_path_factory.mktemp("copied")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, place / package, ignore=shutil.ignore_patterns("__pycache__"))
    (place / "orchestrator/.#errors.py").symlink_to("somebody@n1.4711")  # as Emacs marks what it edits
    return place


def job(place: Path, check: tuple[str, ...], **profile: Any) -> "subprocess.CompletedProcess[str]":
    """Run the beginning of a job's script where the packages in `place` are installed."""
    results = place / "results"
    results.mkdir(exist_ok=True)
    (results / "spec.yaml").touch()
    settings = {"memory": "1GB", "time_limit": "1h", "python": sys.executable, **profile}
    lines = [*setup_lines(Profile.model_validate(settings), results, check), "echo it begins"]
    return subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        cwd=place, env={"PATH": "/usr/bin:/bin", "SLURMD_NODENAME": "n1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_an_allocation_begins_where_the_same_code_is_installed_elsewhere(copied: Path) -> None:
    ran = job(copied, check_command())
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "it begins\n", "")


def test_an_allocation_of_another_version_ends_at_once_and_its_log_says_why(copied: Path) -> None:
    version = copied / "orchestrator/version.py"
    before = version.read_text()
    version.write_text(before.replace('VERSION = "', 'VERSION = "9.'))
    try:
        ran = job(copied, check_command())
    finally:
        version.write_text(before)
    assert (ran.returncode, ran.stdout) == (CONFIGURATION_FAULT, "")
    log = copied / "results/logs/slurm/5ab1/12_0_log.err"
    log.parent.mkdir(parents=True)
    log.write_text(ran.stderr)
    words = end_reason(ResultsFolder(copied / "results"), "5ab1", "12")
    assert words.startswith(f"the job runs ntksweep 9.{installation().version} (code ")
    assert f" at {copied} on n1" in words
    assert f"submitted by {installation()}: install the same in both places" in words


def test_an_allocation_goes_on_with_an_edited_checkout_and_says_so(copied: Path) -> None:
    here = replace(installation(), place=str(copied), code="before")
    ran = job(copied, (*check_command()[:2], json.dumps(here.to_json())))
    assert (ran.returncode, ran.stdout) == (0, "it begins\n")
    assert f"{copied} was changed since the submission, from code before to {installation().code}" in ran.stderr
    raised = replace(here, numerics="before")
    ran = job(copied, (*check_command()[:2], json.dumps(raised.to_json())))
    assert ran.returncode == CONFIGURATION_FAULT
    assert "submit again with `ntksweep resume`, which takes it as it is now" in ran.stderr


def test_an_allocation_without_ntksweep_is_told(tmp_path: Path) -> None:
    ran = job(tmp_path, check_command(), python="/usr/bin/python3")
    assert ran.returncode == CONFIGURATION_FAULT
    assert ran.stderr.splitlines()[-1] == "ntksweep: ntksweep does not start with /usr/bin/python3 on n1"
