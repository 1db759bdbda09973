"""Kernels of stages that a worker computes next, decomposed on the GPU together with that of the current stage."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from ntk_dist.arrays import FloatArray
from orchestrator.errors import DamagedArtifactError
from orchestrator.stages.solve import SolveParameters
from orchestrator.store.stage import Stage

if TYPE_CHECKING:
    from ntk_dist.solvers.device_eigen import DeviceEigh

logger = logging.getLogger(__name__)

Groups = tuple[str, ...]
Decomposed = tuple[FloatArray, FloatArray]
"""Eigenvalues (M,) and eigenvectors (M, M)."""


def coming_next(stage: Stage[SolveParameters], groups: Sequence[str], ahead: Sequence[Stage]) -> Iterator[Groups]:
    """Yield the layer sets of a stage after one of them, and then those of further stages of the same problem."""
    sets = stage.parameters.layer_sets
    yield from sets[sets.index(tuple(groups)) + 1 :]
    for later in ahead:
        parameters = later.parameters
        if (later.inputs, parameters.problem, parameters.method) == (
            stage.inputs, stage.parameters.problem, stage.parameters.method,
        ):  # fmt: skip
            yield from parameters.layer_sets


class DecomposedAhead:
    """Decompositions that wait for their layer sets; what is not asked for is forgotten with the next kernels."""

    def __init__(self) -> None:
        self._of: object = None
        self._held: dict[Groups, Decomposed] = {}

    def take(self, problem: object, groups: Sequence[str]) -> Decomposed | None:
        """Return the decomposition of a layer set's kernel, if it waits for it."""
        return self._held.pop(tuple(groups), None) if problem == self._of else None

    def decompose(
        self,
        problem: object,
        K: FloatArray,
        others: Sequence[Groups],
        kernel: Callable[[Groups], FloatArray],
        eigh: "DeviceEigh",
    ) -> Decomposed | None:
        """Return the decomposition of K (M, M), which stays as it is, and hold those of other layer sets.

        None, if they cannot be decomposed together: each stage then tries its own kernel, and meets what is wrong.

        Args:
            problem: what tells its kernels from those of other problems.
            K: the kernel of the current layer set.
            others: the layer sets that come next.
            kernel: returns the kernel of a layer set.
            eigh: the device.
        """
        from ntk_dist.solvers.symmetric import DeviceFailure

        self._of, self._held = problem, {}
        try:
            first, *found = eigh.together([K, *map(kernel, others)])
        except (DeviceFailure, DamagedArtifactError) as error:
            logger.info("kernels are decomposed one by one: %s", error)
            return None
        self._held = {groups: each for groups, each in zip(others, found, strict=True) if each is not None}
        return first
