"""`python -m ntksweep` is the command `ntksweep`."""

from orchestrator.cli import main

main()
