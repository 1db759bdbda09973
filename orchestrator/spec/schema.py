"""The spec as a JSON Schema, with which editors complete keys and mark invalid values."""

import json
from pathlib import Path
from typing import Any

from orchestrator.documents.files import UnreadableFileError, text_of
from orchestrator.spec.model import Spec
from orchestrator.spec.sections import SHORT_NAMES

FILE_NAME = "ntksweep.schema.json"
"""Name of the schema file that `ntksweep init` writes beside a spec."""


def schema_comment() -> str:
    """Return the comment at the head of a spec that tells editors where its schema is."""
    return f"# yaml-language-server: $schema={FILE_NAME}"


def json_schema() -> str:
    """Return the JSON Schema (draft 2020-12) of the spec, as text.

    It accepts every spec that `ntksweep plan` accepts. Rules between several keys are checked by `plan` alone.
    """
    schema = _with_bounds(Spec.model_json_schema())
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": _TITLE}
    _let_tasks_share(schema)
    _let_names_be_short(schema["$defs"]["AdapterSection"])
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def is_schema(path: Path) -> bool:
    """Tell whether a file is the schema of some version of ntksweep, which may be replaced."""
    try:
        content = json.loads(text_of(path))
    except (FileNotFoundError, UnreadableFileError, ValueError):
        return False
    return isinstance(content, dict) and content.get("title") == _TITLE


_TITLE = "Spec of ntksweep"

_BOUNDS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}


def _with_bounds(part: Any) -> Any:
    """Return a part of a schema with its bounds under JSON Schema's names; pydantic uses its own after a validator."""
    if isinstance(part, list):
        return [_with_bounds(each) for each in part]
    if not isinstance(part, dict):
        return part
    of_numbers = part.get("type") in ("integer", "number")
    return {_BOUNDS.get(key, key) if of_numbers else key: _with_bounds(value) for key, value in part.items()}


def _let_tasks_share(schema: dict[str, Any]) -> None:
    """Make task keys optional in `task` and in `grid.tasks`: tasks of the grid take missing keys from `task`."""
    whole, part = {"$ref": "#/$defs/TaskSection"}, {"$ref": "#/$defs/TaskPart"}
    definitions = schema["$defs"]
    definitions["TaskPart"] = {key: value for key, value in definitions["TaskSection"].items() if key != "required"}
    for tasks in definitions["GridSection"]["properties"]["tasks"]["anyOf"]:
        if "additionalProperties" in tasks:
            tasks["additionalProperties"] = part
    schema["required"].remove("task")
    schema["properties"]["task"] |= part
    schema["if"] = {"properties": {"grid": {"required": ["tasks"]}}}
    schema["else"] = {"required": ["task"], "properties": {"task": whole}}


def _let_names_be_short(section: dict[str, Any]) -> None:
    """Let keys of a section stand under their shorter names."""
    for short, full in SHORT_NAMES.items():
        section["properties"][short] = section["properties"][full]
        section["required"].remove(full)
        section.setdefault("allOf", []).append({"oneOf": [{"required": [full]}, {"required": [short]}]})
