"""Runs Ray on one node of an allocation: `python -m slurm.ray.node`, started there by srun.

What it hears on its standard input has it begin and go on; the end of that, silence, or SIGTERM has it end.

Two processes watch over Ray's: the first makes the folder and holds the ports, the second runs `ray start`. If either
is killed, the other ends Ray, waits until nothing of it runs, and removes the folder.
"""

import argparse
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import IO

from slurm.errors import SlurmError
from slurm.ray.gpus import allocator_settings, visible_gpus
from slurm.ray.needs import object_store_folder, refuse_full, refuse_too_few_threads, refuse_unreachable
from slurm.ray.ports import held_ports
from slurm.ray.private_folder import private_folder, remove
from slurm.ray.processes import adopt_orphans, die_with_parent, kill_descendants, start_child

MARK = "ntksweep ray node: "
"""Beginning of the lines that are meant for the process which started this one."""

ENDED_BY_ITSELF = "ray ended by itself"
"""Beginning of the message after an end of Ray that nobody asked for."""

NODE_PORTS = (
    "node-manager-port",
    "object-manager-port",
    "dashboard-agent-grpc-port",
    "dashboard-agent-listen-port",
    "runtime-env-agent-port",
    "metrics-export-port",
)
HEAD_PORTS = ("port", "dashboard-port")
CLIENT_PORT = "ray-client-server-port"

RAY_ENVIRONMENT = {
    "RAY_prestart_worker_first_driver": "0",  # workers start as actors are made; none is made in advance
    "RAY_enable_worker_prestart": "0",
    "RAY_BACKEND_LOG_LEVEL": "warning",
}

SPARE_WORKER_PORTS = 24
"""Ports for Ray's own helpers and for drivers, beside two for each worker (one that ends, one that takes its place)."""

LOOK_SECONDS = 0.1

BEGIN = b"begin"
"""Message that tells this process that Ray's head is ready."""

SILENT_SECONDS = 30
"""Seconds without a line after which this process ends, since the allocation has then given up its node."""


def main() -> None:
    """Run Ray until it ends, or until this process is told to stop."""
    options = _parser().parse_args()
    # Slurm can send these to whole jobs before the time limit; they would kill Ray's processes.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    # Blocked until both processes can handle it; neither may end without cleaning up.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    adopt_orphans()
    count = len(NODE_PORTS) + len(HEAD_PORTS) + 1 + 2 * options.workers + SPARE_WORKER_PORTS
    try:
        refuse_missing_gpus(options.gpus, os.environ)
        refuse_unreachable(options.address)
        refuse_too_few_threads(options.workers)
        with (
            private_folder(options.scratch) as folder,
            held_ports(count, options.job, options.rank) as ports,
        ):
            refuse_full(folder.parent)
            command = ray_command(options, folder / "ray", ports)
            _say(f"step={os.environ.get('SLURM_STEP_ID', '')} port={ports[0]}")
            status = _guarded(lambda: _run_ray(command, folder))
    except SlurmError as error:
        sys.exit(str(error))
    _say("ended")
    sys.exit(status)


class MissingGpusError(SlurmError):
    """A node gives this job fewer GPUs than it asked for."""


def refuse_missing_gpus(wanted: int, environment: Mapping[str, str]) -> None:
    """Raise an error if this job's GPUs on this node are fewer than those it asked for.

    Raises:
        MissingGpusError: says which there are.
    """
    listed = visible_gpus(environment)
    if listed is None or len(listed) >= wanted:
        return  # a cluster without device files names none
    raise MissingGpusError(
        f"the job asked for {wanted} GPUs on this node and has {len(listed)} there "
        f"(CUDA_VISIBLE_DEVICES={environment['CUDA_VISIBLE_DEVICES']}): see what `setup` and `modules` of the profile "
        "do to that variable, or have the node's gres.conf corrected"
    )


def ray_command(options: argparse.Namespace, folder: Path, ports: Sequence[int]) -> list[str]:
    """Return the command that runs Ray as part of this process's job.

    Args:
        options: as parsed.
        folder: where Ray keeps its sockets and logs. Ray makes it open to everyone, so it must lie in a private one.
        ports: those that this node may use, the head's first.
    """
    names = (*HEAD_PORTS, CLIENT_PORT, *NODE_PORTS)
    named = dict(zip(names, ports, strict=False))
    command = [sys.executable, "-m", "slurm.ray.start", "start", "--block", "--disable-usage-stats"]
    if options.join:
        command += [f"--address={options.join}"]
    else:
        command += ["--head", "--no-monitor"]  # the autoscaler is not needed: the nodes are those of the allocation
        command += [f"--{name}={named[name]}" for name in HEAD_PORTS]
        if find_spec("grpc") is not None:  # Ray then opens a server for clients too, whose port has to be given
            command += [f"--{CLIENT_PORT}={named[CLIENT_PORT]}"]
        command += [f"--include-dashboard={options.dashboard}", "--dashboard-host=127.0.0.1"]
    command += [f"--{name}={named[name]}" for name in NODE_PORTS]
    command += [
        f"--worker-port-list={','.join(map(str, ports[len(names) :]))}",
        f"--node-ip-address={options.address}",
        f"--temp-dir={folder}",
        f"--num-cpus={options.workers}",
        f"--num-gpus={options.gpus}",
        f"--object-store-memory={options.object_store}",
        "--no-redirect-output",  # what Ray and the workers write goes to the log of the node, which stays
        "--include-log-monitor=false",
    ]
    if options.memory:
        command += [f"--memory={options.memory}"]
    stored = object_store_folder(folder.parent)
    return command + ([f"--plasma-directory={stored}"] if stored else [])


def _guarded(work: Callable[[], int]) -> int:
    """Run `work` in a process of its own; when it has ended, kill all processes that it leaves."""
    parent = os.getpid()
    worker = os.fork()
    if not worker:
        status = 1
        try:
            die_with_parent(parent)
            status = work()
        finally:
            os._exit(status)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(worker, signal.SIGTERM))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    _, ended = os.waitpid(worker, 0)
    kill_descendants()
    return os.waitstatus_to_exitcode(ended) % 256


def _run_ray(command: Sequence[str], folder: Path) -> int:
    adopt_orphans()
    try:
        signal.signal(signal.SIGTERM, _stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        environment = {**os.environ, "TMPDIR": str(folder), **RAY_ENVIRONMENT, **allocator_settings(os.environ)}
        ray = start_child(command, environment)
        assert ray.stdin is not None
        _watch(ray, ray.stdin, folder / "ray" / "ray_current_cluster")
        _say(f"{ENDED_BY_ITSELF}, with status {ray.returncode}")
        return 1
    except _StopError:
        return 0
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        kill_descendants()
        remove(folder)


def _watch(ray: "subprocess.Popen[bytes]", ray_input: IO[bytes], address: Path) -> None:
    """Let Ray begin when told to; report when its address file shows that it is ready; return when it ends.

    Raises:
        _StopError: this process is told to stop, or nothing has been heard for `SILENT_SECONDS`.
    """
    ready, silent, heard = False, 0.0, b""
    while ray.poll() is None:
        if not ready and address.exists():
            ready = True
            _say("ready")
        # Not by the clock, which also runs while Slurm has suspended the job.
        silent += LOOK_SECONDS
        if select.select([sys.stdin], [], [], LOOK_SECONDS)[0]:
            silent = 0.0
            told = os.read(sys.stdin.fileno(), 1024)
            # The other end is closed when the process that started this one ends, however it does.
            if not told:
                raise _StopError
            heard = heard[-len(BEGIN) :] + told  # a word may come in two parts
            if BEGIN in heard:
                heard = b""
                ray_input.write(BEGIN + b"\n")
                ray_input.flush()
        if silent > SILENT_SECONDS:
            _say(f"nothing was heard from the allocation for {SILENT_SECONDS} s; Ray ends")
            raise _StopError


class _StopError(Exception):
    """This process is told to stop, by SIGTERM, the end of its input, or silence."""


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _StopError


def _say(message: str) -> None:
    # In one piece, and on a line of its own: Ray, which writes to the same log, may be in the middle of a line.
    sys.stdout.flush()
    os.write(sys.stdout.fileno(), f"\n{MARK}{message}\n".encode())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m slurm.ray.node", description=__doc__)
    parser.add_argument("--join", metavar="ADDRESS", help="address of the head; without it this node is the head")
    parser.add_argument("--address", required=True, help="IP address of this node")
    parser.add_argument("--job", type=int, required=True, help="number of the job")
    parser.add_argument("--rank", type=int, required=True, help="number of this start of Ray within the job")
    parser.add_argument("--workers", type=int, required=True, help="worker processes")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs of the allocation on this node")
    parser.add_argument("--memory", type=int, default=0, help="bytes of the allocation on this node; 0: unknown")
    parser.add_argument("--object-store", type=int, required=True, help="bytes of Ray's object store")
    parser.add_argument("--scratch", type=Path, required=True, help="folder for temporary files on this node")
    parser.add_argument("--dashboard", action="store_true", help="run Ray's dashboard, on the loopback address")
    return parser


if __name__ == "__main__":
    main()
