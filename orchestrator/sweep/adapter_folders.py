"""Folders that hold an adapter, of peft or of the library adapters, and no model."""

import json
from pathlib import Path

from orchestrator.errors import SourceError

ADAPTER = "adapter_config.json"
"""File by which an adapter is known."""

_NOT_MERGED = ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "ADAPTION_PROMPT", "CPT")
"""Kinds of peft that add inputs to a model instead of changing its weights."""


def check_no_adapter(folder: Path) -> None:
    """Check that a folder without a model is not that of an adapter.

    Raises:
        SourceError: it is; says of which model, and what to do.
    """
    adapter = folder / ADAPTER
    if adapter.is_file():
        base, advice = _about(adapter)
        raise SourceError(f"{folder} holds an adapter alone{base}, and no model: {advice}")


def _about(adapter: Path) -> tuple[str, str]:
    """Return the base model that an adapter names, in brackets, and what to do with the adapter."""
    merge = "merge it into its model (merge_and_unload of peft) and save the result"
    try:
        facts = json.loads(adapter.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "", merge
    if not isinstance(facts, dict):
        return "", merge
    base = facts.get("base_model_name_or_path") or facts.get("model_name")
    if facts.get("peft_type") in _NOT_MERGED:
        merge = f"of its kind, {facts['peft_type']}, none can be merged into a model; name the model itself"
    elif "peft_type" not in facts and "config" in facts:
        merge = "it is one of the library adapters, which cannot be merged into a model; name the model itself"
    return (f" (of {base})" if isinstance(base, str) else ""), merge
