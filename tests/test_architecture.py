"""Imports between packages: arrows point down only, and the lower packages work without a cluster's libraries."""

import ast
import json
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from orchestrator.stages.registry import KINDS
from tests.root import ROOT

MAY_IMPORT = {
    "ntk_dist": set(),
    "slurm": set(),
    "finetune": {"ntk_dist"},
    "orchestrator": {"ntk_dist", "finetune", "slurm"},
    "ntksweep": {"ntk_dist", "finetune", "slurm", "orchestrator"},
}
"""For each package, those of the others that it may import."""

PACKAGES = list(MAY_IMPORT)

LIGHT = {"torch", "transformers", "peft", "numpy", "scipy", "pyarrow"}
"""Libraries that the lower packages may load when they are imported."""

SHARDED = (ROOT / "finetune/parallel", ROOT / "finetune/zero")
"""Folders of the code that shards models."""

HEAVY = ("ray", "submitit", "deepspeed")
"""Libraries without which the lower packages must work."""


LONGEST = 400
"""Lines of a module."""

LONGEST_OF_A_KIND = 200
"""Lines of a module of a kind of stage: what somebody reads who adds one like it."""


def sources(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, package
    return found


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(nodes: Iterator[ast.AST] | list[ast.stmt], path: Path) -> Iterator[tuple[str, int]]:
    """Yield the dotted name and the line of every import among `nodes`."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            yield str(node.module), node.lineno


def run_at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that run when a module is imported: none inside functions or under TYPE_CHECKING."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            yield from run_at_import(statement.orelse)
        elif not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            for block in ("body", "orelse", "finalbody"):
                yield from run_at_import(getattr(statement, block, []))
            for handler in getattr(statement, "handlers", []):
                yield from run_at_import(handler.body)


@pytest.mark.parametrize("package", PACKAGES)
def test_arrows_point_down_only(package: str):
    others = MAY_IMPORT.keys() - MAY_IMPORT[package] - {package}
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources(package)
        for name, line in imported(ast.walk(tree_of(path)), path)
        if name.partition(".")[0] in {*others, "tests", "benchmarks", "examples"}
    ]
    assert wrong == []


def room_of(name: str) -> str:
    """Return the room of a module, or of a name in it: its folder; beside a package's folders each module is a room."""
    path = ROOT.joinpath(*name.split("."))
    while not path.is_dir() and not path.with_suffix(".py").is_file():
        path = path.parent
    room = path if path.is_dir() or path.parent.parent == ROOT else path.parent
    return ".".join(room.relative_to(ROOT).parts)


def rooms_read_by(package: str) -> dict[str, set[str]]:
    """Return, for each room of a package, the others of it that its modules import, at whatever time."""
    read: dict[str, set[str]] = {}
    for path in sources(package):
        room = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
        for name in imported_at_any_time(path):
            if name.partition(".")[0] == package and room_of(name) != room:
                read.setdefault(room, set()).add(room_of(name))
    return read


def imported_at_any_time(path: Path) -> Iterator[str]:
    """Yield the dotted names, of modules and what is taken from them, that a file imports for more than its types."""
    for_types = {
        id(node)
        for block in ast.walk(tree_of(path))
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for statement in block.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom) and id(node) not in for_types:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import) and id(node) not in for_types:
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_arrow_between_rooms_leads_back(package: str):
    try:
        TopologicalSorter(rooms_read_by(package)).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@pytest.mark.parametrize("package", ["ntk_dist", "finetune"])
def test_lower_rooms_need_few_libraries_when_they_are_imported(package: str):
    allowed = LIGHT | set(sys.stdlib_module_names) | MAY_IMPORT[package] | {package}
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources(package)
        for name, line in imported(list(run_at_import(tree_of(path).body)), path)
        if name.partition(".")[0] not in allowed
    ]
    assert wrong == []


@pytest.mark.parametrize("package", ["ntk_dist", "finetune"])
def test_lower_rooms_know_nothing_of_clusters_and_specs(package: str):
    foreign = {*HEAVY, "yaml", "pydantic", "typer", "rich"}
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources(package)
        for name, line in imported(ast.walk(tree_of(path)), path)
        # DeepSpeed is imported where models are sharded, and there only by what needs it.
        if name.partition(".")[0] in foreign - ({"deepspeed"} if path.parent in SHARDED else set())
    ]
    assert wrong == []


@pytest.mark.parametrize("folder", [*PACKAGES, "tests", "benchmarks"])
def test_modules_are_short(folder: str):
    kinds = ROOT / "orchestrator/stages"
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sources(folder)}
    limits = {path: LONGEST_OF_A_KIND if kinds in path.parents else LONGEST for path in lines}
    assert {str(path.relative_to(ROOT)): lines[path] for path in lines if lines[path] > limits[path]} == {}


IMPORT_ALL_WITHOUT = """
import importlib, json, sys

modules, missing = json.loads(sys.argv[1])
sys.modules.update(dict.fromkeys(missing))  # None there makes an import fail, and a search find nothing
for module in modules:
    importlib.import_module(module)
"""


def modules_of(package: str) -> list[str]:
    found = pkgutil.walk_packages([str(ROOT / package)], prefix=f"{package}.")
    return [package, *(module.name for module in found if not module.name.endswith("__main__"))]


def import_without(modules: list[str], missing: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", IMPORT_ALL_WITHOUT, json.dumps([modules, missing])],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_lower_rooms_are_imported_on_a_machine_without_a_clusters_libraries():
    modules = modules_of("ntk_dist") + modules_of("finetune")
    assert len(modules) > 20
    ran = import_without(modules, [*HEAVY, "orchestrator", "slurm", "datasets", "sklearn"])
    assert ran.returncode == 0, ran.stderr


def test_the_command_starts_without_the_libraries_that_take_seconds_to_load():
    slow = ["torch", "transformers", "peft", "ray", "datasets", "sklearn", "submitit", "deepspeed"]
    modules = ["cli", "engine.run", "plan.plan", "results.adapter_folder"]
    ran = import_without([f"orchestrator.{name}" for name in modules], slow)
    assert ran.returncode == 0, ran.stderr


def test_tables_are_written_without_the_libraries_that_models_need():
    written = [name for name in modules_of("orchestrator") if name.endswith((".rows", "solve.path", "solve.scalars"))]
    assert len(written) > 5
    slow = ["torch", "transformers", "peft", "datasets", "sklearn", "deepspeed"]
    ran = import_without(["orchestrator.results.tables.write", *written], slow)
    assert ran.returncode == 0, ran.stderr


def test_the_documentation_lists_every_kind_of_stage():
    page = (ROOT / "docs/running.md").read_text(encoding="utf-8")
    assert [kind for kind in KINDS if f"\n| `{kind}` |" not in page] == []
