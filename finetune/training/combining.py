"""Combinations of weights trained on two tasks from the same start: interpolation, task addition, task negation.

With displacements d_i and d_j from the shared theta_0, all of them are theta_0 + u d_i + v d_j. A model that is linear
in its weights has the outputs f_0 + u (f_i - f_0) + v (f_j - f_0) there; f_i and f_j are those of the trained weights.
"""

import numpy as np

from finetune.errors import CombinationError
from finetune.settings import Operation
from finetune.training.trainable import Displacement
from ntk_dist.arrays import FloatArray

Weights = tuple[float, float]
"""u of the first displacement, v of the second."""


def weights_of(operation: Operation, coefficient: float) -> Weights:
    """Return the weights of an operation with coefficient a.

    They are (1 - a, a) for interpolation, (a, a) for addition and (-a, 0) for the negation of the first (Ortiz-Jimenez,
    Favero and Frossard, arXiv 2305.12827).
    """
    by_operation: dict[Operation, Weights] = {
        "interpolation": (1 - coefficient, coefficient),
        "addition": (coefficient, coefficient),
        "negation": (-coefficient, 0.0),
    }
    return by_operation[operation]


def combined(first: Displacement, second: Displacement, weights: Weights) -> Displacement:
    """Return u d_i + v d_j, parameter by parameter.

    Raises:
        CombinationError: the two are not displacements of the same parameters.
    """
    for name in first.keys() | second.keys():
        shapes = [tuple(each[name].shape) if name in each else None for each in (first, second)]
        if shapes[0] != shapes[1]:
            raise CombinationError(
                f"{name} has the shapes {shapes[0]} and {shapes[1]} in what is to be combined (None: it was not "
                "trained); combine what was trained with the same model, adapter, head and layers"
            )
    u, v = weights
    return {name: u * tensor + v * second[name] for name, tensor in first.items()}


def combined_outputs(initial: FloatArray, first: FloatArray, second: FloatArray, weights: Weights) -> FloatArray:
    """Return f_0 + u (f_i - f_0) + v (f_j - f_0) for outputs of one shape: those of a model linear in its weights.

    For an interpolation this is (1 - a) f_i + a f_j, whatever f_0 is.
    """
    u, v = weights
    return (1 - u - v) * initial + u * first + v * second


def linearity_gap(outputs: FloatArray, expected: FloatArray) -> float:
    """Return |f - f'| / |f| of the outputs f of combined weights and the combined outputs f', Frobenius norms.

    For an interpolation this asks of outputs what Zhou et al., arXiv 2402.03660, ask of features: whether combining the
    weights of models for different tasks combines what they compute. nan where f is 0.
    """
    size = float(np.linalg.norm(outputs))
    return float(np.linalg.norm(outputs - expected)) / size if size else float("nan")
