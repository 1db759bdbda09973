"""Private names of DeepSpeed: they are all in one module, and the installed version has each of them."""

import ast
import importlib.metadata
import importlib.util
import re
from functools import cache
from pathlib import Path

import pytest

from finetune.errors import ProcessGroupError
from finetune.parallel import deepspeed_private as private
from tests.root import ROOT

WHERE = "finetune/parallel/deepspeed_private.py"
PUBLIC = {"initialize", "init_distributed", "zero", "zero.Init", "zero.GatheredParameters"}
"""Names used here that DeepSpeed's documentation describes."""


def deepspeed_file(module: str) -> Path:
    """Return a file of the installed DeepSpeed, which takes seconds to import."""
    spec = importlib.util.find_spec("deepspeed")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent.joinpath(*module.split(".")[1:]).with_suffix(".py")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def names_in(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """Return by name what statements define: functions, classes and variables."""
    found: dict[str, ast.stmt] = {}
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            found[statement.name] = statement
        elif isinstance(statement, ast.Assign):
            found |= {target.id: statement for target in statement.targets if isinstance(target, ast.Name)}
    return found


def attributes_set_in(module: str) -> set[str]:
    """Return the names of the attributes that a module of DeepSpeed gives to anything."""
    nodes = ast.walk(tree_of(deepspeed_file(module)))
    return {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}


def test_they_were_looked_at_in_the_version_that_is_pinned_and_installed():
    pinned = re.search(r"^deepspeed==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert pinned[1] == private.LOOKED_AT
    assert importlib.metadata.version("deepspeed") == private.LOOKED_AT


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module in private.NAMES for name in private.NAMES[module]]
)
def test_the_installed_version_defines_each_of_them(module: str, name: str):
    body = tree_of(deepspeed_file(module)).body
    for part in name.split("."):
        defined = names_in(body)
        assert part in defined
        body = getattr(defined[part], "body", [])


def test_the_installed_version_gives_parameters_and_modules_their_attributes():
    on_parameters = attributes_set_in("deepspeed.runtime.zero.partition_parameters")
    assert {private.ID, private.LOCAL_PART, private.SIZE, private.DIVIDE} <= on_parameters
    assert set(private.BACKWARD_COUNTS) <= attributes_set_in("deepspeed.runtime.zero.parameter_offload")
    assert all(name.startswith(private.MODULE_ATTRIBUTES) for name in private.BACKWARD_COUNTS)


def test_no_other_file_uses_private_names():
    wrong = []
    for path in sorted((ROOT / "finetune").rglob("*.py")):
        if path != ROOT / WHERE:
            wrong += [f"{path.relative_to(ROOT)}:{line} uses {name}" for name, line in private_names_in(path)]
    assert wrong == []


def private_names_in(path: Path) -> list[tuple[str, int]]:
    """Return, with their lines, the names of DeepSpeed's modules and attributes in a file that are not public."""
    found = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("deepspeed"):
            found.append((str(node.module), node.lineno))
        elif isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names if alias.name.startswith("deepspeed.")]
        elif isinstance(node, ast.Attribute) and ast.unparse(node).startswith("deepspeed."):
            name = ast.unparse(node).removeprefix("deepspeed.")
            found += [(name, node.lineno)] if name not in PUBLIC else []
        elif isinstance(node, ast.Attribute) and (node.attr.startswith("ds_") or "deepspeed" in node.attr):
            found.append((node.attr, node.lineno))
        elif isinstance(node, ast.Constant) and str(node.value).startswith(("ds_", "deepspeed.", "applied_pre")):
            found.append((str(node.value), node.lineno))
    return found


def test_private_names_in_other_files_would_be_seen():
    assert {name for name, _ in private_names_in(ROOT / WHERE)} >= {"ds_id", "_convert_to_deepspeed_param"}


def test_a_version_without_one_of_them_is_named_with_the_one_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(private, "NAMES", {"json.decoder": ("JSONDecoder.decode", "no_such_name")})
    with pytest.raises(
        ProcessGroupError, match=r"DeepSpeed .* has no json\.decoder\.no_such_name.*install deepspeed==0"
    ):
        private.check_names()
