"""YAML files that people write: read with errors that name line and key, and written so that they read back alike."""

from orchestrator.documents.document import Document

__all__ = ["Document"]
