"""The commands that start, use and end a Slurm cluster on this machine: devcluster up, run, down."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from orchestrator.cli.arguments import possible_path
from orchestrator.cli.terminal import say
from slurm.devcluster import ClusterSettings, DevCluster
from slurm.devcluster.errors import NotUpError
from slurm.devcluster.requirements import refuse_other_users, refuse_what_cannot_run

app = typer.Typer(
    help="Start a real Slurm cluster of several nodes on this machine, in namespaces of its own, to try sweeps on.\n\n"
    "Needs the rights of root and packages of Debian or Ubuntu; says which are missing.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

USUAL = ClusterSettings()

FolderOption = Annotated[
    Path | None,
    typer.Option(
        help="Holds the cluster's state and logs.", show_default="~/.cache/ntksweep/devcluster", callback=possible_path
    ),
]
NodesOption = Annotated[int, typer.Option(help="How many nodes.")]
CpusOption = Annotated[int, typer.Option(help="Processors that Slurm counts on a node.")]
MemoryOption = Annotated[int, typer.Option(help="Memory that Slurm counts on a node, in megabytes.")]
GpusOption = Annotated[int, typer.Option(help="GPUs that Slurm counts on a node; they need not exist.")]
AccountingOption = Annotated[
    bool, typer.Option("--accounting/--no-accounting", help="Whether Slurm accounts jobs (slurmdbd, sacct).")
]


@app.command()
def up(
    *,
    folder: FolderOption = None,
    nodes: NodesOption = USUAL.nodes,
    cpus: CpusOption = USUAL.cpus,
    memory: MemoryOption = USUAL.memory_mb,
    gpus: GpusOption = USUAL.gpus,
    accounting: AccountingOption = True,
) -> None:
    """Start a cluster that stays up, and say how to use it.

    Example: ntksweep devcluster up --nodes 3
    """
    begun = time.monotonic()
    cluster = DevCluster.up(_folder(folder), ClusterSettings(nodes, cpus, memory, gpus, accounting))
    seconds = time.monotonic() - begun
    option = f" --folder {shlex.quote(str(folder))}" if folder else ""
    command = f"ntksweep devcluster run{option}"
    say(f"up in {seconds:.1f} s: {_describe(cluster.settings)}")
    say("partitions main (preempted by high), high, small (one node, 10 minutes)")
    say(f"  use it:      {command} sinfo")
    say(f"  a shell:     {command} bash")
    say(f"  end it:      ntksweep devcluster down{option}")
    say(f"  its logs:    {cluster.folder / 'log'}")


@app.command()
def down(folder: FolderOption = None) -> None:
    """End a cluster and everything that runs in it.

    Example: ntksweep devcluster down
    """
    refuse_other_users()
    cluster = DevCluster.find(_folder(folder))
    if cluster is None:
        raise NotUpError(f"no development cluster is up in {_folder(folder)}; nothing is left to end")
    cluster.down()
    say(f"down; logs and state are left in {cluster.folder}, which may be deleted")


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def run(
    command: Annotated[list[str], typer.Argument(metavar="COMMAND", help="What to run.", show_default=False)],
    *,
    folder: FolderOption = None,
    nodes: NodesOption = USUAL.nodes,
    cpus: CpusOption = USUAL.cpus,
    memory: MemoryOption = USUAL.memory_mb,
    gpus: GpusOption = USUAL.gpus,
    accounting: AccountingOption = True,
) -> None:
    """Run a command in the cluster that is up; if none is up, start one for this command.

    Exit status: the command's.

    Example: ntksweep devcluster run sbatch --wrap hostname
    """
    settings = ClusterSettings(nodes, cpus, memory, gpus, accounting)
    refuse_what_cannot_run(settings)
    cluster = DevCluster.find(_folder(folder))
    if cluster is not None:
        _become(cluster.command(command))
    cluster = DevCluster.up(_folder(folder), settings, tied=True)
    try:
        status = _wait_for(cluster.command(command))
    finally:
        cluster.down()
    raise typer.Exit(status)


def _folder(given: Path | None) -> Path:
    return given or Path.home() / ".cache/ntksweep/devcluster"


def _describe(settings: ClusterSettings) -> str:
    names = settings.node_names
    nodes = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
    accounting = "with" if settings.accounting else "without"
    return (
        f"nodes {nodes}, each with {settings.cpus} processors, {settings.memory_mb} MB and "
        f"{settings.gpus} pretended GPUs; {accounting} accounting"
    )


def _become(command: list[str]) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    command = _unmoved(command)
    os.execvp(command[0], command)


def _unmoved(command: list[str]) -> list[str]:
    """Return a command that ignores Ctrl-C; the command inside receives it too, and would be killed with this one."""
    return ["env", "--ignore-signal=INT", *command]


def _wait_for(command: list[str]) -> int:
    # The terminal sends Ctrl-C to the command too, which decides what it means; a handler is not inherited, as
    # ignoring would be.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        status = subprocess.run(_unmoved(command), check=False).returncode
    finally:
        signal.signal(signal.SIGINT, before)
    return status if status >= 0 else 128 - status
