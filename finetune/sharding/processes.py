"""The processes of a model group: joined as torchrun starts them, and what each of them works on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TypeVar

import torch

from finetune.errors import GroupError

Work = TypeVar("Work")


@dataclass(frozen=True)
class ModelGroup:
    """This process among those that hold one model together.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
    """

    rank: int
    size: int

    def rounds(self, work: Sequence[Work]) -> Iterator[tuple[Work, bool]]:
        """Yield what this process works on, round by round, and whether the result counts.

        Every process has equally many rounds, because the weights of each layer come from all of them. Where there is
        not enough work for a last round, the others work on something once more, and their result is dropped.
        """
        for first in range(0, len(work), self.size):
            number = first + self.rank
            yield (work[number], True) if number < len(work) else (work[first], False)


@contextmanager
def joined_group() -> Iterator[ModelGroup]:
    """Join the processes that torchrun, or whatever sets its variables, has started; leave them at the end.

    After an error this process does not take its leave: the others would end before it has said what went wrong.

    Raises:
        GroupError: DeepSpeed is not installed, or nothing says which processes there are.
    """
    try:
        import deepspeed

        # The package has torch itself under the same name, which a plain import would find.
        deepspeed_torch = import_module("deepspeed.comm.torch")
    except ImportError as error:
        raise GroupError(
            f"a model group needs DeepSpeed, which cannot be imported ({error}): install the extra `sharded`"
        ) from error
    if not torch.distributed.is_torchelastic_launched():
        raise GroupError("a model group is started by torchrun: torchrun --nproc-per-node 2 ...")
    if not torch.cuda.is_available():
        # Between processes of one machine DeepSpeed would compile an extension that only its own reductions use.
        vars(deepspeed_torch)["build_shm_op"] = lambda: None
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    deepspeed.init_distributed(backend, auto_mpi_discovery=False, verbose=False)
    yield ModelGroup(torch.distributed.get_rank(), torch.distributed.get_world_size())
    torch.distributed.destroy_process_group()
