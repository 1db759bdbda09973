"""A trainable model of which the processes of a group share the examples of every batch."""

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

from finetune.model.scorer import Scorer
from finetune.parallel.exchange import check_agreement, for_all, from_all
from finetune.parallel.process_group import ProcessGroup
from finetune.training.origins import Origin
from finetune.training.stacked import StackedModel
from finetune.training.trainable import Displacement, Positions, Split
from ntk_dist.kernel.features import OutputMode


class DataParallelModel(StackedModel):
    """A `StackedModel` whose examples are shared among the processes of a group.

    Every process calls it alike and gets the outputs of all examples, of which it computes its own; in the backward
    pass the gradients of displacements are summed. So `finetune.training.loop` makes the same steps on all of them:
    displacements, losses and what follows from them have the same bits everywhere.

    Args:
        scorer: the model, sharded over these processes or on each of them; its own weights are never changed.
        groups: names of the groups that are trained.
        starts: see `StackedModel`, as the two that follow.
        outputs: see there.
        origins: see there.
        process_group: the processes.
    """

    def __init__(
        self,
        scorer: Scorer,
        groups: Sequence[str],
        starts: Sequence[Origin],
        outputs: OutputMode,
        origins: Sequence[int],
        *,
        process_group: ProcessGroup,
    ) -> None:
        super().__init__(scorer, groups, starts, outputs, origins)
        self._process_group = process_group

    def outputs(self, split: Split, positions: Sequence[Positions], cells: list[int]) -> Tensor:
        """See `Trainable.outputs`.

        Raises:
            ProcessGroupError: the processes no longer have the same displacements.
        """
        self._check_agreement(split, positions, cells)
        n_examples = len(positions[0])
        places = list(range(self._process_group.rank, n_examples, self._process_group.size))
        # Where there are fewer examples than processes, some work on one that does not count; where each takes a pass
        # of its own, all processes take equally many.
        n_own = -(-n_examples // self._process_group.size) if self._scorer.alone else max(1, len(places))
        own = [each[[*places, *[0] * (n_own - len(places))]] for each in positions]
        part = self.outputs_at(self._moved(cells), split, own, cells)
        return from_all(part, places, n_examples)

    def _moved(self, cells: Sequence[int]) -> list[Displacement]:
        """Return the displacements of cells, whose gradients are summed over processes."""
        names = list(self.displacements[0])
        passed = iter(
            for_all([self.displacements[cell][name] for cell in cells for name in names], self._process_group)
        )
        return [{name: next(passed) for name in names} for _ in cells]

    def _check_agreement(self, split: Split, positions: Sequence[Positions], cells: list[int]) -> None:
        """Check that all processes are about to do the same: they would wait for each other, or train apart."""
        asked = zlib.crc32(repr((split, [each.tolist() for each in positions], cells)).encode())
        check_agreement([asked, sum(_bits(self.displacements[cell]) for cell in cells) % 2**63], self._process_group)


@torch.no_grad()
def _bits(displacement: Displacement) -> int:
    """Return the sum of a displacement's bit patterns as whole numbers, which does not depend on the order."""
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    read = [tensor.view(integers[tensor.element_size()]).sum(dtype=torch.int64) for tensor in displacement.values()]
    return int(torch.stack(read).sum())
