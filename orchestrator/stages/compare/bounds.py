"""What regularization proves of a training run, held against what was measured of it."""

import numpy as np
import numpy.typing as npt

from finetune.training.settings import TrainingSettings
from ntk_dist.arrays import FloatArray
from ntk_dist.spectrum.bounds import minimizer_distance_bound, minimizer_linearization_bound, violation
from orchestrator.errors import BrokenBoundError
from orchestrator.stages.compare.trained_run import TrainedRun


class ProvenBounds:
    """Bounds of a run of S cells that lowers R + (lambda/2)|theta - theta_0|^2, R >= 0 the summed loss.

    Args:
        run: the run.
        training: how it was trained.

    Attributes:
        initial: R_0, (S,), before training; nan where lambda holds the weights in another way.
    """

    def __init__(self, run: TrainedRun, training: TrainingSettings) -> None:
        self._run = run
        self._lambdas: FloatArray = run.trained.array("lambda")
        n = run.problem.n_train
        first = run.first_losses() if training.loss == "squared" else run.trained.array("objectives")[0]
        self.initial = n * first if training.regularizer == "l2sp" else np.full(len(self._lambdas), np.nan)
        self._objectives = n * run.trained.array("objectives")

    def distance(self) -> FloatArray:
        """Return sqrt(2 R_0 / lambda), (S,)."""
        pairs = zip(self.initial, self._lambdas, strict=True)
        return np.array([minimizer_distance_bound(float(loss), np.array([each]))[0] for loss, each in pairs])

    def distances(self, n_evaluations: int) -> FloatArray:
        """Return the same (K, S) while the objective has only fallen; nan from where it rose or the cell had ended.

        Raises:
            BrokenBoundError: the objective is below that of the start, and the weights are further away.
        """
        bound, seen = self.distance(), self._run.trained.array("distances")
        for evaluation, distances in enumerate(seen):
            self._check(distances, bound, self._objectives[evaluation] <= self.initial)
        only_fallen = self._run.rises() == 0
        found = np.full((n_evaluations, len(bound)), np.nan)
        found[: len(seen)] = np.where(only_fallen & np.isfinite(seen), bound, np.nan)
        return found

    def linearization(self, curvature: FloatArray) -> FloatArray:
        """Return b R_0 / lambda, (S,), for smoothness constants b (S,)."""
        each = zip(curvature, self.initial, self._lambdas, strict=True)
        return np.array([minimizer_linearization_bound(b, float(loss), np.array([at]))[0] for b, loss, at in each])

    def _check(self, distances: FloatArray, bound: FloatArray, lowered: npt.NDArray[np.bool_]) -> None:
        broken = np.flatnonzero(lowered & (violation(distances, bound, bound) > 0))
        if len(broken):
            cell = int(broken[0])
            raise BrokenBoundError(
                f"|theta - theta_0| is {distances[cell]} at lambda {self._lambdas[cell]} and cannot exceed "
                f"{bound[cell]}: that is an error in ntksweep; please report it with the spec"
            )
