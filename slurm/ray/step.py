"""A job step that runs Ray on one node, and its output so far."""

import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from slurm.ray.node import BEGIN, ENDED_BY_ITSELF, MARK

OUT_OF_MEMORY = re.compile(
    r"^(slurmstepd|srun)\S*: .*(exceeded (step |job )?memory limit|oom[-_ ]?kill|out[ _]of[ _]memory)",
    re.IGNORECASE | re.MULTILINE,
)
"""Slurm's messages when it, or the kernel, kills processes for their memory. Ray may write such words at any time."""

KEPT_VARIABLES = re.compile(r"SLURM_(JOB_|ARRAY_|SUBMIT_|JOBID$|CONF$|CLUSTER_NAME$|RESTART_COUNT$|WORKING_CLUSTER$)")
"""Slurm's variables that a step keeps; srun would take most others, set for the whole job, for its own options."""

TAIL_LINES = 25

SECONDS_FOR_SLURM = 5
"""Seconds that Slurm gets to accept a message; the other nodes wait meanwhile."""


class RayStep:
    """`slurm.ray.node` on a node, run by srun.

    Attributes:
        node: Slurm's name of the node.
    """

    def __init__(self, node: str, command: Sequence[str], cpus: int, gpus: int, log: Path) -> None:
        self.node = node
        self._log = log
        self._before = log.stat().st_size if log.exists() else 0  # what earlier steps wrote there
        self._command = [
            *("srun", "--overlap", "--nodes=1", "--ntasks=1", f"--nodelist={node}", "--export=ALL"),
            # All that the job has on the node, since a step might get less by default.
            *(f"--cpus-per-task={cpus}", "--cpu-bind=none", "--mem=0", "--mpi=none"),
            *([f"--gres=gpu:{gpus}"] if gpus else []),
            *command,
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, environment: Mapping[str, str]) -> None:
        """Start the step; it ends when this process ends."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=step_environment(environment),
                stdin=subprocess.PIPE,  # closed when this process ends, however it ends; that ends the step
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        if self._process.stdin is not None:
            os.set_blocking(self._process.stdin.fileno(), False)

    @property
    def port(self) -> int | None:
        """The first port that the node took for itself; None if it has not said so yet."""
        found = re.search(rf"^{MARK}.*\bport=(\d+)$", self.text(), re.MULTILINE)
        return int(found[1]) if found else None

    def is_ready(self) -> bool:
        """Return whether Ray is alive on the node, as the head sees it."""
        return re.search(rf"^{MARK}ready$", self.text(), re.MULTILINE) is not None

    def has_ended(self) -> bool:
        """Return whether srun has ended, and with it the step unless Slurm lost the node."""
        return self._process is not None and self._process.poll() is not None

    def is_gone(self) -> bool:
        """Return whether nothing of the step runs any more, for certain: its task was seen to end."""
        task_ended = rf"^{MARK}ended$|^srun: error: {re.escape(self.node)}: task 0: "
        return self.has_ended() and re.search(task_ended, self.text(), re.MULTILINE) is not None

    def ray_gave_up(self) -> bool:
        """Return whether Ray ended by itself there, and not what looks after it."""
        return f"{MARK}{ENDED_BY_ITSELF}" in self.text()

    def ran_out_of_memory(self) -> bool:
        """Return whether Slurm or the kernel killed the step for its memory, as far as it was told."""
        return OUT_OF_MEMORY.search(self.text()) is not None

    def tail(self) -> str:
        """Return the last lines of what the step wrote, for people."""
        return "\n".join(self.text().splitlines()[-TAIL_LINES:]) or "(nothing)"

    def text(self) -> str:
        """Return the step's output."""
        with self._log.open("rb") as log:
            log.seek(self._before)
            return log.read().decode(errors="replace")

    def begin(self) -> None:
        """Have Ray join its head, which must be ready; until then it only loads."""
        self._write(BEGIN + b"\n")

    def beat(self) -> None:
        """Tell the step that this process still looks after it; the step ends after a while without this message."""
        self._write(b"\n")

    def end(self) -> None:
        """Tell the step to end and to leave nothing behind; SIGTERM would have srun kill it."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def wait(self, seconds: float) -> None:
        """Wait for srun to end; after `seconds`, have Slurm kill the step, and kill srun."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            self.cancel(signal.SIGKILL)
            self._process.kill()
            self._process.wait()

    def cancel(self, number: signal.Signals) -> None:
        """Have Slurm send a signal to the step, for when srun cannot or is gone."""
        found = re.search(rf"^{MARK}step=(\d+)", self.text(), re.MULTILINE)
        if found:
            command = ["scancel", f"--signal={number.value}", f"{os.environ['SLURM_JOB_ID']}.{found[1]}"]
            # It may have ended meanwhile; and without Slurm it ends itself, because it hears nothing any more.
            with suppress(subprocess.TimeoutExpired):
                subprocess.run(command, check=False, capture_output=True, timeout=SECONDS_FOR_SLURM)

    def _write(self, words: bytes) -> None:
        if self._process is not None and self._process.stdin is not None:
            # Errors are ignored if it has ended, see `has_ended`, or if the pipe is full because srun is stuck.
            with suppress(BrokenPipeError, BlockingIOError):
                os.write(self._process.stdin.fileno(), words)


def step_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for srun without the variables that it would take for options."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(("SLURM_", "SRUN_")) or KEPT_VARIABLES.match(name)
    }


def killed_for_memory(log: Path) -> bool:
    """Return whether the last step that wrote to a node's log was killed for its memory."""
    try:
        last = log.read_text(errors="replace").rpartition(f"{MARK}step=")[2]
    except OSError:
        return False
    return OUT_OF_MEMORY.search(last) is not None
