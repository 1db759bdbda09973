"""YAML files that people write: reading with errors that name line and key, and writing that reads back unchanged."""

from orchestrator.documents import complaints, faults
from orchestrator.documents.document import Document, Overrides
from orchestrator.documents.overriding import overrides_of

LAST_RESORTS = (complaints.LAST_RESORT, faults.LAST_RESORT)
"""Beginnings of messages about faults for which no explanation exists; tests search for them."""

__all__ = ["LAST_RESORTS", "Document", "Overrides", "overrides_of"]
