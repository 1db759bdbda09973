"""Helpers of tests that read the command's answers."""

import json
from pathlib import Path
from typing import Any


def strict_json(text: str) -> Any:
    """Read JSON as the standard has it, without NaN and Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def folder_of(spec: Path) -> Path:
    return spec.parent / "results"
