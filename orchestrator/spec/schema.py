"""The spec as a JSON Schema, by which editors complete keys and mark what cannot stand where it does."""

import json
from typing import Any

from orchestrator.spec.model import Spec

FILE_NAME = "ntksweep.schema.json"
"""What `ntksweep init` calls the schema that it writes beside a spec."""


def schema_comment() -> str:
    """Return the comment at the head of a spec that tells editors where its schema is."""
    return f"# yaml-language-server: $schema={FILE_NAME}"


def json_schema() -> str:
    """Return the JSON Schema (draft 2020-12) of the spec, as text.

    It takes every spec that `ntksweep plan` takes. What ties keys together is for `plan` alone.
    """
    schema = _with_bounds(Spec.model_json_schema())
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Spec of ntksweep"}
    _let_tasks_share(schema)
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


_BOUNDS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}


def _with_bounds(part: Any) -> Any:
    """Return a part of a schema whose bounds have JSON Schema's names: pydantic leaves its own behind a validator."""
    if isinstance(part, list):
        return [_with_bounds(each) for each in part]
    if not isinstance(part, dict):
        return part
    of_numbers = part.get("type") in ("integer", "number")
    return {_BOUNDS.get(key, key) if of_numbers else key: _with_bounds(value) for key, value in part.items()}


def _let_tasks_share(schema: dict[str, Any]) -> None:
    """Let tasks of the grid take from the section `task` what they do not say, so that neither need say all."""
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
