"""Work of the processes of a group in tests of its end: they die or fail. No models are loaded for that."""

import os
import signal

import torch

from finetune.parallel.processes import joined_group


def die_alone(rank: int) -> None:
    """Kill the process of a rank while the others wait for it."""
    with joined_group() as group:
        if group.rank == rank:
            os.kill(os.getpid(), signal.SIGKILL)
        torch.distributed.barrier()


def fail_alone(rank: int) -> None:
    """Raise an error in the process of a rank while the others wait for it."""
    with joined_group() as group:
        if group.rank == rank:
            raise ValueError("no such layer")
        torch.distributed.barrier()
