"""The choice of a cell's examples: at random, equally many of each class, or the first rows in their order."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.data.task import Examples
from finetune.errors import SamplingError, TooFewExamplesError
from finetune.settings import Sampling

Positions = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Sample:
    """Positions drawn from `Examples`.

    Attributes:
        train: (n_train,) positions in the training pool.
        evaluation: (n_eval,) positions in the evaluation pool.
    """

    train: Positions
    evaluation: Positions


def sample(examples: Examples, *, n_train: int, n_eval: int, seed: int, sampling: Sampling = "random") -> Sample:
    """Choose the examples of a seed.

    "random" takes both splits from seeded permutations. "balanced" takes n_train / C training examples of each class
    in turn, in the order of the same permutation, and the same evaluation examples. "first" takes the first rows of
    each split as they stand, whatever the seed; where evaluation examples are held out from the training split they are
    its last rows.

    A smaller `n_train` gives the beginning of a larger one's examples, and the evaluation examples do not depend
    on it.

    Raises:
        TooFewExamplesError: a pool or a class has fewer examples than are asked for; says how many there are.
        SamplingError: as `check_balance`, or balanced examples of a task without classes.
    """
    available = len(examples.train)
    if examples.held_out:
        _check_enough(available, n_train + n_eval, f"{n_train} training and {n_eval} held-out evaluation")
    else:
        _check_enough(available, n_train, f"{n_train} training")
        _check_enough(len(examples.evaluation), n_eval, f"{n_eval} evaluation")
    if sampling == "first":
        start = available - n_eval if examples.held_out else 0
        return Sample(train=np.arange(n_train), evaluation=np.arange(start, start + n_eval))
    order = np.random.default_rng([seed, 0]).permutation(available)
    if examples.held_out:
        evaluation, order = order[:n_eval], order[n_eval:]
    else:
        evaluation = np.random.default_rng([seed, 1]).permutation(len(examples.evaluation))[:n_eval]
    if sampling == "balanced":
        order = _class_by_class(examples, order, n_train)
    return Sample(train=order[:n_train], evaluation=evaluation)


def check_balance(n_train: int, n_classes: int) -> None:
    """Check that `n_train` training examples can be divided equally among the classes.

    Raises:
        SamplingError: `n_train` is no multiple of the number of classes; names the nearest ones.
    """
    if n_train % n_classes:
        below = n_train - n_train % n_classes
        nearest = f"{below} or {below + n_classes}" if below else str(n_classes)
        raise SamplingError(
            f"balanced sampling takes as many examples of each of the {n_classes} classes: n_train must be a multiple "
            f"of {n_classes}, not {n_train}; take {nearest}"
        )


def _class_by_class(examples: Examples, order: Positions, n_train: int) -> Positions:
    """Take one example of each class in turn, each class in the order given: (n_train,)."""
    labels = examples.train.labels
    if not np.issubdtype(labels.dtype, np.integer):
        raise SamplingError("balanced sampling needs classes: use random for regression")
    n_classes = examples.n_outputs
    check_balance(n_train, n_classes)
    each = n_train // n_classes
    chosen = [order[labels[order] == label][:each] for label in range(n_classes)]
    for label, positions in enumerate(chosen):
        _check_enough(len(positions), each, f"{each} training", of=f" of class {label}")
    return np.stack(chosen, axis=1).ravel()


def _check_enough(there: int, wanted: int, what: str, *, of: str = "") -> None:
    if there < wanted:
        raise TooFewExamplesError(f"{what} examples{of} are asked for, but there are {there}; lower n_train or n_eval")
