"""The page on the architecture: the files and functions that it sends readers to exist."""

import ast
import re
from pathlib import Path

from tests.root import ROOT

PAGE = (ROOT / "docs/architecture.md").read_text()
PATHS = sorted(set(re.findall(r"`([\w/]+/\w+\.py)`", PAGE)))
NAMED = re.findall(r"`([\w/]+/\w+\.py)` \(([^)]+)\)", PAGE)


def file_of(path: str) -> Path:
    """Return the file of a path as the page writes it, from the root or from `orchestrator`."""
    below = ROOT / "orchestrator" / path
    return below if below.is_file() else ROOT / path


def names_in(file: Path) -> set[str]:
    """Return the functions and classes of a module, and the methods as `Class.method`."""
    body = ast.parse(file.read_text()).body
    defined = [node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    methods = {
        f"{node.name}.{method.name}"
        for node in defined
        if isinstance(node, ast.ClassDef)
        for method in node.body
        if isinstance(method, ast.FunctionDef)
    }
    return {node.name for node in defined} | methods


def test_every_file_exists():
    assert len(PATHS) > 15
    assert [path for path in PATHS if not file_of(path).is_file()] == []


def test_every_function_is_in_its_file():
    assert len(NAMED) > 5
    missing = [
        f"{path}: {name}"
        for path, names in NAMED
        for name in re.findall(r"`([\w.]+)`", names)
        if name not in names_in(file_of(path))
    ]
    assert missing == []
