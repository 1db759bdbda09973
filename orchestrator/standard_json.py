"""Standard JSON, which every reader accepts; Python's own writer would write NaN and Infinity."""

import json
import math
from typing import Any


def standard_json(value: Any, *, indent: int | None = None) -> str:
    """Return `value` as JSON; NaN and infinities become null, and objects that JSON lacks, such as times, text."""
    return json.dumps(_finite(value), indent=indent, default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value
