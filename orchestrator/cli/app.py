"""The command line: its commands, and its exit after errors."""

import os
import shutil
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from orchestrator.cli import (
    beginning,
    clusters,
    devcluster,
    picturing,
    planning,
    running,
    selecting,
    showing,
    watching,
)
from orchestrator.cli.arguments import TRACEBACK, VERBOSE, traceback_wanted
from orchestrator.cli.stopping import ending, stop_as_by_ctrl_c
from orchestrator.cli.terminal import Terminal, log_on_terminal, say
from orchestrator.engine.executors.ray_thread import leave
from orchestrator.environment import refuse_what_is_too_old
from orchestrator.errors import ExitCode, SweepError
from orchestrator.literal import printable
from orchestrator.process_log import own_process
from orchestrator.version import VERSION
from slurm.errors import SlurmError


class _Interrupted(BaseException):
    """Ctrl-C in a form that typer does not catch; typer would end the command without a message."""


@contextmanager
def _usage_errors_shown() -> Iterator[None]:
    """Escape control characters in typer's messages about wrong arguments, which quote them."""
    try:
        yield
    except Exception as error:
        if hasattr(error, "format_message") and hasattr(error, "message"):  # the class has no public name
            error.message = printable(str(error.message))
        raise


class _Commands(TyperGroup):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # People write them behind the command that failed.
        end = args.index("--") if "--" in args else len(args)
        of_all = [each for each in args[:end] if each == TRACEBACK or VERBOSE.fullmatch(each)]
        args = [*of_all, *(each for each in args[:end] if each not in of_all), *args[end:]]
        with _usage_errors_shown():
            return list(super().parse_args(ctx, args))

    def invoke(self, ctx: Any) -> Any:
        try:
            with _usage_errors_shown():
                return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            raise _Interrupted from interrupt


NARROW = 80
"""Columns below which help is plain text: in boxes, names of options would be cut off."""

app = typer.Typer(
    name="ntksweep",
    cls=_Commands,
    help="Find out which layers of a language model to fine-tune, and how strongly to regularize, with its neural "
    "tangent kernel.\n\nExample: ntksweep run examples/quickstart.yaml",
    epilog="Exit status: 0 done, 1 stages failed, 2 wrong input, 3 unfinished, 4 the disk is full or read-only, "
    "5 Ray does not start or was lost too often, 130 interrupted, 143 ended by SIGTERM, 129 by SIGHUP.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich" if shutil.get_terminal_size().columns >= NARROW else None,
)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"ntksweep {VERSION}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    _: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_version, is_eager=True)
    ] = False,
    _traceback: Annotated[
        bool, typer.Option(TRACEBACK, help="Print the traceback of an error below its message.")
    ] = False,
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose", "-v", count=True, show_default=False, help="Log decisions on standard error; -vv logs more."
        ),
    ] = 0,
) -> None:
    context.with_resource(own_process())
    context.with_resource(log_on_terminal(verbose))
    # The doctor says the same and more: it looks at everything before it gives up.
    if context.invoked_subcommand != "doctor":
        refuse_what_is_too_old()


app.command("init")(beginning.init)
app.command("schema")(planning.schema)
app.command("plan")(planning.plan)
app.command("run")(running.run)
app.command("submit", rich_help_panel="On a cluster")(clusters.submit)
app.command("resume", rich_help_panel="On a cluster")(clusters.resume)
app.command("wait", rich_help_panel="On a cluster")(clusters.wait)
app.command("cancel", rich_help_panel="On a cluster")(clusters.cancel)
app.command("logs", rich_help_panel="On a cluster")(clusters.logs)
app.add_typer(devcluster.app, name="devcluster", rich_help_panel="On a cluster")
app.command("status")(watching.status)
app.command("show")(showing.show)
app.command("select")(selecting.select)
app.command("export")(showing.export)
app.command("report")(picturing.report)
app.command("plot")(picturing.plot)
app.command("findings")(picturing.findings)
app.command("doctor")(showing.doctor)


def main() -> None:
    """Run the command and turn errors that have an explanation into a message and an exit status."""
    # Libraries that show bars or warnings of their own would write into ours.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("DATASETS_VERBOSITY", "critical")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    errors = Terminal(stderr=True)
    try:
        stop_as_by_ctrl_c()
        app()
    except (SweepError, SlurmError) as error:
        errors.print("error:", style="bold red", end=" ")
        errors.print(str(error), soft_wrap=True)
        if traceback_wanted():
            errors.print("".join(traceback.format_exception(error)).rstrip(), soft_wrap=True)
        leave(error.exit_code if isinstance(error, SweepError) else ExitCode.WRONG_INPUT)
    except (_Interrupted, KeyboardInterrupt):
        message, status = ending()
        with suppress(OSError):  # the terminal may be closed
            errors.print(f"\n{message}", soft_wrap=True)
        leave(status)
