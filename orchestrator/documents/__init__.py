"""YAML files that people write: read with errors that name line and key, and written so that they read back alike."""

from orchestrator.documents import complaints, faults
from orchestrator.documents.document import Document

LAST_RESORTS = (complaints.LAST_RESORT, faults.LAST_RESORT)
"""What messages say where a library found a fault that was never met; tests look for them."""

__all__ = ["LAST_RESORTS", "Document"]
