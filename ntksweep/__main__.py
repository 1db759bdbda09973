"""The command `ntksweep`, which `python -m ntksweep` is too."""

import sys

WRONG_INPUT = 2
"""The exit status; that of the command cannot be loaded then."""


def main() -> None:
    """Run the command."""
    import ntksweep

    try:
        ntksweep.refuse_hidden_packages()
    except ImportError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(WRONG_INPUT)
    from orchestrator.cli import main as command

    command()


if __name__ == "__main__":
    main()
