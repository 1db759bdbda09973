"""The command `ntksweep`."""

from orchestrator.loading import no_garbage

with no_garbage():
    from orchestrator.cli.app import main

__all__ = ["main"]
