"""The public names: each is declared, loaded on use, described, and the examples print what the page says."""

import ast
import importlib
import inspect
import os
import re
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from docs import write_api
from orchestrator.hidden_packages import hidden
from orchestrator.version import VERSION
from tests.root import ROOT
from tests.test_architecture import import_without

PACKAGES = list(write_api.EXAMPLES)
EXAMPLES = [example for example in write_api.EXAMPLES.values() if example]

HEAVY = ["torch", "transformers", "peft", "numpy", "scipy", "pandas", "pyarrow", "pydantic", "ray", "submitit", "typer"]
"""Libraries that importing a package must not load."""


def names() -> list[tuple[str, str]]:
    return [(package, name) for package in PACKAGES for name in importlib.import_module(package).__all__]


def functions() -> list[Callable[..., Any]]:
    found = (getattr(importlib.import_module(package), name) for package, name in names())
    return list(dict.fromkeys(each for each in found if inspect.isfunction(each)))


@pytest.mark.parametrize(("package", "name"), names())
def test_each_name_is_there_and_says_what_it_is(package: str, name: str) -> None:
    module = importlib.import_module(package)
    assert name in dir(module)
    if name != "__version__":
        assert inspect.getdoc(getattr(module, name))


@pytest.mark.parametrize("function", functions(), ids=lambda each: each.__name__)
def test_each_function_says_the_shapes_of_arrays_and_its_errors(function: Callable[..., Any]) -> None:
    said = inspect.getdoc(function) or ""
    _, _, body = inspect.getsource(function).split('"""', 2)
    if re.search("Array|Tensor|ndarray", str(inspect.signature(function).return_annotation)):
        assert re.search(r"\([A-Za-z_0-9*]+(/R)?,|elementwise", said)
    if re.search(r"\braise ", body):
        assert re.search("Raises|errors: as", said)


@pytest.mark.parametrize("package", PACKAGES)
def test_type_checkers_see_the_names_that_are_there(package: str) -> None:
    module = importlib.import_module(package)
    seen = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for block in ast.parse((ROOT / package / "__init__.py").read_text()).body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen.keys() | {"__version__"} == set(module.__all__) | {"__version__"}
    assert sorted(set(module.__all__)) == sorted(module.__all__)
    for name, place in seen.items():
        home, _, own = place.rpartition(".")
        assert getattr(module, name) is getattr(importlib.import_module(home), own)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nonsense'"):
        _ = module.nonsense


def test_importing_the_packages_loads_no_library() -> None:
    ran = import_without(PACKAGES, HEAVY)
    assert ran.returncode == 0, ran.stderr


MEASURED_IMPORT = """
import sys, time
before = set(sys.modules)
began = time.process_time()
import ntksweep
seconds = time.process_time() - began
loaded = set(sys.modules) - before
print(seconds, *sorted(name for name in loaded if name.partition(".")[0] not in sys.stdlib_module_names))
"""


def test_importing_ntksweep_takes_no_time_and_loads_nothing_but_itself(tmp_path: Path) -> None:
    seconds = []
    for _ in range(3):  # the least of them: the first may compile, and the machine is shared
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        said = subprocess.check_output(
            [sys.executable, "-c", MEASURED_IMPORT], cwd=tmp_path, env=environment, text=True
        ).split()
        assert said[1:] == ["ntksweep"]
        seconds.append(float(said[0]))
    assert min(seconds) < 0.05, "seconds of a processor"


@pytest.mark.parametrize("name", ["finetune", "ntk_dist", "slurm", "orchestrator"])
@pytest.mark.parametrize("code", ["import ntksweep\nntksweep.run", "from ntksweep import load"])
def test_a_file_of_the_user_that_hides_a_package_is_named(tmp_path: Path, name: str, code: str) -> None:
    (tmp_path / f"{name}.py").write_text("mine = True\n")
    (tmp_path / "script.py").write_text(code)
    ran = ran_in(tmp_path, "script.py")
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == (
        f"ImportError: {tmp_path / name}.py hides the package `{name}` of ntksweep: Python looks for modules in its "
        "folder first; rename it, or run in another folder"
    )


def test_the_command_names_it_in_one_message(tmp_path: Path) -> None:
    (tmp_path / "finetune.py").touch()
    ran = ran_in(tmp_path, "-m", "ntksweep", "--version")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"error: {tmp_path / 'finetune.py'} hides the package `finetune`")
    (tmp_path / "finetune.py").unlink()
    assert ran_in(tmp_path, "-m", "ntksweep", "--version").stdout == f"ntksweep {VERSION}\n"


def ran_in(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run Python in a folder, with the packages behind it on the path."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_a_file_that_only_workers_would_meet_is_named_too(tmp_path: Path) -> None:
    (tmp_path / "slurm.py").touch()
    assert hidden() == ""
    assert hidden([str(tmp_path)]).startswith(f"{tmp_path / 'slurm.py'} hides the package `slurm` of ntksweep: worker")
    (tmp_path / "slurm.py").rename(tmp_path / "mine.py")
    assert hidden([str(tmp_path)]) == ""


@pytest.mark.parametrize("package", PACKAGES)
def test_a_wheel_holds_each_package_and_that_it_is_typed(package: str) -> None:
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert any(fnmatch(package, pattern) for pattern in options["packages"]["find"]["include"])
    assert "py.typed" in options["package-data"][package]
    assert (ROOT / package / "py.typed").is_file()


def test_the_page_names_what_is_there() -> None:
    assert write_api.PAGE.read_text(encoding="utf-8") == write_api.page(), "run `python docs/write_api.py`"


@pytest.mark.parametrize(
    "example", [pytest.param(each, marks=[pytest.mark.sweep] if each == "sweeps" else []) for each in EXAMPLES]
)
def test_the_examples_print_what_the_page_says(
    example: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    runpy.run_path(str(Path("examples/library") / f"{example}.py"), run_name="__main__")
    assert capsys.readouterr().out == dict(write_api.examples_of(write_api.PAGE.read_text(encoding="utf-8")))[example]
