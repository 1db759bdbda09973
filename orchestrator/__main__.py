"""`python -m orchestrator` is the command `ntksweep`."""

from orchestrator.cli import main

main()
