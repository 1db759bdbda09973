"""Criteria for ranking layer sets before training: numbers of kernels and ridge paths, not of trained models."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orchestrator.errors import ResultsError, SpecError
from orchestrator.results.usual_names import CRITERIA as USUAL_NAMES
from orchestrator.results.usual_names import simplified
from orchestrator.spec import Spec
from orchestrator.sweep.training_estimates import ERROR_ESTIMATES, NEEDS_EIGENVECTORS, missing_estimates


@dataclass(frozen=True)
class Criterion:
    """A number of a layer set's kernel by which sets are ranked.

    Attributes:
        name: its name on the command line.
        column: the column of `cells` that it reads.
        large_is_good: whether the layer set with the largest value is the best, else the one with the smallest.
        geometric: whether its means over seeds are geometric, as for numbers that differ by factors.
        over_lambdas: whether its value depends on lambda; the best lambda of each layer set and seed then counts.
        meaning: a sentence about its meaning and the data that it uses.
    """

    name: str
    column: str
    large_is_good: bool
    geometric: bool
    over_lambdas: bool
    meaning: str

    def best(self, values: npt.ArrayLike) -> float:
        """Return the best of values (n,); nan values do not count, and nan is returned if there are no others."""
        array = np.asarray(values, dtype=np.float64)
        known = array[~np.isnan(array)]
        if not known.size:
            return float("nan")
        return float(known.max() if self.large_is_good else known.min())

    def mean(self, values: npt.ArrayLike) -> float:
        """Return the mean of values (n,), arithmetic or geometric; nan if one of them is."""
        array = np.asarray(values, dtype=np.float64)
        return float(np.exp(np.log(array).mean()) if self.geometric else array.mean())

    def badness(self, value: float) -> float:
        """Return a sort key that is smaller for better values; nan is worst."""
        if np.isnan(value):
            return float("inf")
        return -value if self.large_is_good else value


_KERNEL_ONLY = "rests on the training examples' kernel alone, without their labels"

CRITERIA = (
    Criterion(
        "condition_fixed", "condition_number_fixed_sigma", False, True, False,
        "(sigma_max + s)/(sigma_min + s) with s = kernel.sigma: how unevenly gradient descent learns the modes of the "
        f"kernel; {_KERNEL_ONLY}. s is absolute, so kernels of larger trace come out worse.",
    ),
    Criterion(
        "condition_relative", "condition_number_relative_sigma", False, True, False,
        "(sigma_max + s)/(sigma_min + s) with s = kernel.relative_sigma * trace/M: how unevenly gradient descent "
        f"learns the modes of the kernel, whatever its scale; {_KERNEL_ONLY}.",
    ),
    Criterion(
        "effective_rank", "effective_rank", True, False, False,
        f"exp of the entropy of the normalized spectrum: over how many modes the kernel is spread; {_KERNEL_ONLY}.",
    ),
    Criterion(
        "alignment", "label_alignment", True, False, False,
        "cosine between the kernel and that of the labels: how well the kernel's similarity is that of the classes or "
        "ratings; rests on the training examples' kernel and labels, not on what the model says before training.",
    ),
    Criterion(
        "gcv", "gcv", False, False, True,
        "generalized cross-validation, an estimate of the linearized model's squared error on new examples; rests on "
        "the training examples, their labels and the model's outputs before training. If a ridge head was fitted to "
        "these labels, that is counted.",
    ),
    Criterion(
        "leave_one_out", "leave_one_out_loss", False, False, True,
        "loss of the linearized model on each training example when it is fitted to the others, and so is a ridge or "
        "logistic head, the kernel being held; rests on the training examples, their labels and the model's outputs "
        "before training.",
    ),
    Criterion(
        "evidence", "log_evidence", True, False, True,
        "log-density of the training labels under the Gaussian process whose mean is the ridge solution: how well the "
        "kernel explains them, large kernels that could explain anything counting less; rests on the training "
        "examples, their labels and the model's outputs before training.",
    ),
    Criterion(
        "eval_loss", "eval_loss", False, False, True,
        "loss of the linearized model on the evaluation examples; rests on their labels too, so it is optimistic for "
        "the set and the lambda that it chooses.",
    ),
    Criterion(
        "train_loss", "train_loss", False, False, True,
        "loss of the linearized model on the training examples that it is fitted to: what the layer set can express at "
        "its best lambda, as a rule the smallest, not how well that carries over; it favors many layers.",
    ),
)  # fmt: skip


def criterion_named(name: str, spec: Spec) -> Criterion:
    """Return a criterion by name, for a sweep of `spec`.

    Raises:
        SpecError: there is none of that name; the message names the nearest.
        ResultsError: the sweep does not have its column.
    """
    by_name = {criterion.name: criterion for criterion in CRITERIA}
    meant: dict[str, str] = {}
    if name not in by_name:
        meant = {**USUAL_NAMES, **{each.column: each.name for each in CRITERIA}, **{each: each for each in by_name}}
        name = meant.get(simplified(name), name)
    if name not in by_name:
        raise SpecError(f"there is no criterion `{name}`; {_hint(name, list(by_name), list(meant))}")
    criterion = by_name[name]
    missing = _missing(spec)
    if criterion.column in missing:
        others = [each.name for each in CRITERIA if each.column in ERROR_ESTIMATES and each.column not in missing]
        raise ResultsError(
            f"{name} is empty in this sweep, for {missing[criterion.column]}{_with_eigenvectors(missing)}; take "
            f"`--by {others[0] if others else 'alignment'}`"
        )
    return criterion


def usual_criterion(spec: Spec) -> Criterion:
    """Return the default criterion for layer sets of a sweep: gcv, or leave_one_out if gcv is empty.

    Raises:
        ResultsError: the sweep has neither; the message gives the reason and the other criteria.
    """
    missing = _missing(spec)
    for criterion in CRITERIA:
        if criterion.column in ERROR_ESTIMATES and criterion.column not in missing:
            return criterion
    raise ResultsError(
        f"this sweep has no gcv, for {missing['gcv']}, and no leave_one_out, for {missing['leave_one_out_loss']}"
        f"{_with_eigenvectors(missing)}; or name another criterion, such as `--by alignment`"
    )


def _missing(spec: Spec) -> dict[str, str]:
    return missing_estimates(spec.head.kind, spec.kernel)


def _with_eigenvectors(missing: Mapping[str, str]) -> str:
    """Return instructions to get leave-one-out losses, if only eigenvectors are missing for them."""
    if missing.get("leave_one_out_loss") != NEEDS_EIGENVECTORS:
        return ""
    return ": set it and run with `--on-change given` (the kernel blocks are used again)"


def _hint(name: str, names: Sequence[str], understood: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name, understood, n=1, cutoff=0.5)
    return (f"did you mean `{nearest[0]}`? " if nearest else "") + f"criteria: {', '.join(names)}"
