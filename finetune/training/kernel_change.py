"""Change of the kernel in training, against the kernel at the pretrained point."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.training.stacked import displaced_stack
from finetune.training.trainable import Displacement
from ntk_dist.errors import NonFiniteError
from ntk_dist.jacobian.capture import jacobian_rows
from ntk_dist.jacobian.tracked import TrackedLinear
from ntk_dist.kernel.features import KernelKind, OutputMode


class KernelChange:
    """Compares the kernel of a few examples with its value at the pretrained point; an observer of training.

    The kernel is that of all parameters of its groups, also of those whose gradient is zero at the pretrained point.

    Args:
        scores: each runs the model on some of the m examples and returns their outputs (b, R).
        groups: by group the modules of the kernel.
        trained: by group the modules that are displaced.
        kind: which kernel of the rows.
        outputs: whether an example's outputs have rows of their own, or one for their average ("trace").
        before_backward: `Scorer.before_backward`; all processes of a sharded model call the observer alike, and find
            the same.
    """

    def __init__(
        self,
        scores: Sequence[Callable[[], Tensor]],
        groups: Mapping[str, Sequence[TrackedLinear]],
        trained: Mapping[str, Sequence[TrackedLinear]],
        *,
        kind: KernelKind = "sgd",
        outputs: OutputMode = "full",
        before_backward: Callable[[int], None] | None = None,
    ) -> None:
        self._scores = scores
        self._before_backward = before_backward
        self._kind = kind
        self._outputs = outputs
        self._groups = groups
        self._trained = [linear for linears in trained.values() for linear in linears]
        self._first = self._kernel(None)

    def __call__(self, displacements: Mapping[int, Displacement]) -> Mapping[str, NDArray[np.float64]]:
        """Return numbers (S,) for S displacements, by Frobenius norms; nan where outputs or gradients are not finite.

        They are `kernel_change`, |K - K_0| / |K_0|, and `kernel_alignment`, <K, K_0> / (|K| |K_0|).
        """
        kernels = [self._kernel_if_finite(displacement) for displacement in displacements.values()]
        first = np.linalg.norm(self._first)
        with np.errstate(divide="ignore", invalid="ignore"):
            return {
                "kernel_change": np.array([np.linalg.norm(K - self._first) / first for K in kernels]),
                "kernel_alignment": np.array([
                    np.vdot(K, self._first) / (np.linalg.norm(K) * first) for K in kernels
                ]),
            }  # fmt: skip

    def _kernel_if_finite(self, displacement: Displacement) -> NDArray[np.float64]:
        try:
            return self._kernel(displacement)
        except NonFiniteError:
            return np.full_like(self._first, np.nan)

    def _kernel(self, displacement: Displacement | None) -> NDArray[np.float64]:
        with displaced_stack(self._trained if displacement else [], [displacement] if displacement else []):
            found = [
                jacobian_rows(score, self._groups, before_backward=self._before_backward)[1] for score in self._scores
            ]
        products = [self._block(torch.cat([rows[name] for rows in found])) for name in self._groups]
        return np.asarray(np.sum(products, axis=0), dtype=np.float64)

    def _block(self, rows: Tensor) -> NDArray[np.float64]:
        """Return the kernel block of a group's rows (m, R, p)."""
        raw = rows.double()
        left = self._features(raw.sign() if self._kind == "sign" else raw)
        right = self._features(raw if self._kind == "sgd" else raw.sign())
        return np.asarray((left @ right.T).cpu().numpy(), dtype=np.float64)

    def _features(self, rows: Tensor) -> Tensor:
        """Return the result of `ntk_dist.kernel.features.features` for rows, on their device."""
        if self._outputs == "trace":
            return rows.flatten(1) / math.sqrt(rows.shape[1])
        return rows.flatten(0, 1)
