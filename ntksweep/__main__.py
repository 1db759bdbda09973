"""The command `ntksweep`, which `python -m ntksweep` is too."""

import signal
import sys

WRONG_INPUT = 2
"""The exit status; that of the command cannot be loaded then."""


def main() -> None:
    """Run the command."""
    interrupted = signal.getsignal(signal.SIGINT)
    _end_at_once()  # loading takes seconds, and nothing has begun
    import ntksweep

    try:
        ntksweep.refuse_hidden_packages()
    except ImportError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(WRONG_INPUT)
    from orchestrator.cli import main as command

    signal.signal(signal.SIGINT, interrupted)
    try:
        command()
    except KeyboardInterrupt as further:  # while the command said how it ended
        sys.exit(128 + (further.args[0] if further.args else signal.SIGINT))
    finally:
        _end_at_once()  # the command has said how it ended


def _end_at_once() -> None:
    """Have the signals that stop a command end this process, without a traceback; those that are ignored stay so."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    main()
