"""Installed packages: messages say what to install in place of an old one, and which feature needs a missing one."""

import json
import os
import shutil
import tomllib
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from orchestrator import environment
from orchestrator.cli import app as cli
from orchestrator.cli import doctor
from orchestrator.cli.doctor import Check, examine
from orchestrator.environment import refuse_missing_deepspeed, refuse_what_is_too_old, requirements, shortfall
from orchestrator.errors import OutdatedError
from tests.orchestrator.sweeps import ntksweep
from tests.root import ROOT


def installed(**versions: str) -> Callable[[str], str]:
    """Return a function that knows the versions of some packages and no others."""

    def version(name: str) -> str:
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    return version


# --- too old

TORCH = next(str(r.specifier) for r in map(Requirement, requires("ntksweep") or ()) if r.name == "torch")


@pytest.mark.parametrize("python", [(3, 10, 14), (3, 9, 0), (2, 7, 18)])
def test_an_old_python_is_told_with_what_to_do(python: tuple[int, ...]):
    found = ".".join(map(str, python))
    with pytest.raises(OutdatedError, match=rf"needs Python 3.11 or newer, this is {found}; make a new virtual"):
        refuse_what_is_too_old(python=python)


@pytest.mark.parametrize("python", [(3, 11, 0), (3, 13, 1), (4, 0, 0)])
def test_a_new_python_will_do(python: tuple[int, ...]):
    refuse_what_is_too_old(python=python)


def test_an_old_torch_is_told_with_what_to_install():
    with pytest.raises(
        OutdatedError, match=rf"torch 2.5.1\+cpu is installed, ntksweep needs {TORCH}; pip install 'torch>"
    ):
        refuse_what_is_too_old(installed=installed(torch="2.5.1+cpu"))


def test_a_missing_torch_is_told_with_what_to_install():
    with pytest.raises(OutdatedError, match=rf"torch is not installed; pip install 'torch{TORCH}'"):
        refuse_what_is_too_old(installed=installed())


@pytest.mark.parametrize("torch", [TORCH.removeprefix(">="), "2.11.0+cu130", "2.13.0+cpu", "3.0.0.dev20260101"])
def test_a_new_torch_will_do(torch: str):
    refuse_what_is_too_old(installed=installed(torch=torch))


def test_the_lowest_versions_are_those_of_the_tests_with_the_lowest_versions():
    root = ROOT
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    lines = (root / "constraints-lowest.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    extras = project["optional-dependencies"]
    for text in [*project["dependencies"], *extras["test"], *extras["polars"], *extras["report"], *extras["sharded"]]:
        needed = Requirement(text)
        lowest = next(part.version for part in needed.specifier if part.operator == ">=")
        if needed.name != "torch":
            assert Version(pinned[needed.name]) == Version(lowest), needed.name
        assert pinned[needed.name] in needed.specifier, needed.name


def test_sharded_models_need_deepspeed():
    refuse_missing_deepspeed()
    with pytest.raises(OutdatedError, match=r"pip install 'ntksweep\[sharded\]'"):
        refuse_missing_deepspeed(installed(deepspeed="0.10"))


def test_the_oldest_python_is_the_one_that_the_package_declares():
    from importlib.metadata import metadata

    declared = metadata("ntksweep")["Requires-Python"]
    assert declared == ">=" + ".".join(map(str, environment.OLDEST_PYTHON))


@pytest.mark.parametrize("command", ["init", "plan", "run", "status", "show", "export"])
def test_every_command_refuses_what_is_too_old(command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(cli, "refuse_what_is_too_old", partial(refuse_what_is_too_old, python=(3, 10, 4)))
    arguments = ["--output", tmp_path / "x.csv"] if command == "export" else []
    answer = ntksweep(command, tmp_path / "x.yaml", *arguments)
    assert answer.status == 2
    assert "error: ntksweep needs Python 3.11 or newer, this is 3.10.4" in answer.errors
    assert not list(tmp_path.iterdir())


# --- shortfalls


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        ({"polars": "1.5"}, None),
        ({"polars": "1.0rc1"}, "polars 1.0rc1 is installed, ntksweep needs >=1.0"),
        ({"polars": "0.20"}, "polars 0.20 is installed, ntksweep needs >=1.0"),
        ({}, "polars is not installed"),
    ],
)
def test_a_shortfall_says_what_is_wrong(versions: dict[str, str], expected: str | None):
    assert shortfall(Requirement("polars>=1.0"), installed(**versions)) == expected


def test_requirements_are_those_of_the_package_and_of_its_extras():
    needed = {requirement.name for requirement in requirements()}
    assert {"torch", "transformers", "peft", "ray", "pyarrow", "typer"} <= needed
    assert "polars" not in needed
    assert [requirement.name for requirement in requirements("polars")] == ["polars"]


# --- the doctor


def check(checks: list[Check], name: str) -> Check:
    (found,) = (each for each in checks if each.name == name)
    return found


def without(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """Make the doctor believe that a package is not installed."""
    real = doctor.version

    def version(name: str) -> str:
        if name == missing:
            raise PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(doctor, "version", version)
    monkeypatch.setattr(doctor, "shortfall", partial(shortfall, installed=version))
    monkeypatch.setattr(doctor, "refuse_what_is_too_old", partial(refuse_what_is_too_old, installed=version))
    monkeypatch.setattr(cli, "refuse_what_is_too_old", partial(refuse_what_is_too_old, installed=version))


def test_here_nothing_that_is_required_is_missing(tmp_path: Path):
    checks = examine(tmp_path)
    assert [each for each in checks if each.required and not each.ok] == []
    answer = ntksweep("doctor", "--folder", tmp_path)
    assert answer.status == 0
    assert "MISSING" not in answer.output


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_results_cannot_be_where_a_file_is(place: str, tmp_path: Path):
    (tmp_path / "file").touch()
    (found,) = (each for each in examine(tmp_path / place) if each.feature == "results")
    assert (found.ok, found.required, found.found) == (False, True, f"{tmp_path}/file is not a folder")


@pytest.mark.parametrize("package", ["peft", "torch"])
def test_a_missing_package_is_told_with_advice_and_a_status(
    package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    without(monkeypatch, package)
    found = check(examine(tmp_path), package)
    assert not found.ok
    assert found.required
    assert found.found == f"{package} is not installed"
    assert found.advice.startswith(f"pip install '{package}>=")
    monkeypatch.setenv("COLUMNS", "200")
    answer = ntksweep("doctor", "--folder", tmp_path)
    assert answer.status == 2
    (line,) = (line for line in answer.output.splitlines() if f"{package} is not installed  " in line)
    assert line.startswith("MISSING")
    assert f"pip install '{package}>=" in line


def test_a_missing_optional_package_is_no_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    without(monkeypatch, "polars")
    found = check(examine(tmp_path), "polars")
    assert (found.ok, found.required, found.advice) == (False, False, "pip install 'ntksweep[polars]'")
    assert ntksweep("doctor", "--folder", tmp_path).status == 0


def test_a_folder_that_cannot_be_written_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    answer = ntksweep("doctor", "--folder", tmp_path / "not" / "yet", "--json")
    assert answer.status == 2
    (found,) = (each for each in json.loads(answer.output) if each["feature"] == "results")
    assert found["name"] == f"folder {tmp_path}"
    assert found["found"] == "Operation not permitted"
    assert "hard links" in found["advice"]


def test_little_shared_memory_is_told_with_the_way_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    real = shutil.disk_usage
    small = real(tmp_path)._replace(free=64_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: small if str(path) == "/dev/shm" else real(path))
    found = check(examine(tmp_path), "shared memory")
    assert not found.ok
    assert not found.required
    assert "compute.executor: inline" in found.advice


def test_an_offline_hub_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert not check(examine(tmp_path), "hub").ok
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert check(examine(tmp_path), "hub").ok
