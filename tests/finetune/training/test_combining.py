"""Combined displacements, and what they do to the outputs of a model that is linear in its weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finetune.errors import CombinationError
from finetune.settings import Operation
from finetune.training.combining import Weights, combined, combined_outputs, linearity_gap, weights_of
from finetune.training.outputs import all_outputs
from finetune.training.trainable import Displacement
from tests.finetune.training.problems import LinearProblem, scorer_of, stacked_of, texts_of
from tests.tiny_models import save_tiny

OPERATIONS: tuple[Operation, ...] = ("interpolation", "addition", "negation")
coefficients = st.floats(min_value=0, max_value=1)
weights = st.tuples(*[st.floats(min_value=-2, max_value=2)] * 2)


def drawn(like: Displacement, seed: int, scale: float = 1.0) -> Displacement:
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(t.shape, generator=draw, dtype=t.dtype) * scale for name, t in like.items()}


@given(coefficients)
def test_weights_of_operations(a: float):
    assert weights_of("interpolation", a) == (1 - a, a)
    assert weights_of("addition", a) == (a, a)
    assert weights_of("negation", a) == (-a, 0)


@given(weights, st.integers(min_value=0, max_value=1000))
def test_a_linear_model_has_no_gap(chosen: Weights, seed: int):
    model = LinearProblem(seed=seed).model()
    (like,) = model.displacements
    first, second = drawn(like, seed), drawn(like, seed + 1)

    def outputs(displacement: Displacement) -> np.ndarray:
        model.displacements = [displacement]
        return all_outputs(model, "eval", [0], at_once=2)[0]

    f = outputs(combined(first, second, chosen))
    initial = outputs({name: torch.zeros_like(tensor) for name, tensor in like.items()})
    expected = combined_outputs(initial, outputs(first), outputs(second), chosen)
    assert np.allclose(f, expected, rtol=1e-10, atol=1e-10)


@given(coefficients)
def test_an_interpolation_is_the_mean_of_both_outputs_wherever_training_began(a: float):
    first, second, initial = (np.random.default_rng(seed).normal(size=(4, 2)) for seed in range(3))
    expected = (1 - a) * first + a * second
    assert np.allclose(combined_outputs(initial, first, second, weights_of("interpolation", a)), expected, atol=1e-14)


def test_a_curved_model_has_a_gap_that_grows_with_what_was_learned(tmp_path: Path):
    folder = save_tiny("bert", tmp_path)
    scorer = scorer_of(folder)
    model = stacked_of(folder, scorer)
    (like,) = model.displacements
    batch = texts_of(folder)["eval"].batch(range(3))
    initial = scorer.logits(batch).detach().numpy()

    def outputs(displacement: Displacement) -> np.ndarray:
        model.displacements = [displacement]
        return all_outputs(model, "eval", [0], at_once=2)[0]

    gaps = []
    for scale in (1e-5, 1e-4, 1e-2):
        first, second = drawn(like, 1, scale), drawn(like, 2, scale)
        expected = combined_outputs(initial, outputs(first), outputs(second), (0.5, 0.5))
        gaps.append(linearity_gap(outputs(combined(first, second, (0.5, 0.5))), expected))
    assert 0 < gaps[0] < gaps[1] < gaps[2]
    assert gaps[1] == pytest.approx(100 * gaps[0], rel=0.05)  # of second order


def test_the_gap_is_relative_to_the_combined_weights_outputs():
    f = np.array([[3.0], [4.0]])
    assert linearity_gap(f, f) == 0
    assert linearity_gap(f, 2 * f) == pytest.approx(1)
    assert np.isnan(linearity_gap(0 * f, f))


def test_displacements_of_other_parameters_are_refused():
    one, other = {"a.weight": torch.zeros(2, 2)}, {"a.weight": torch.zeros(2, 3)}
    with pytest.raises(CombinationError, match=r"a\.weight has the shapes \(2, 2\) and \(2, 3\)"):
        combined(one, other, (0.5, 0.5))
    with pytest.raises(CombinationError, match=r"b has the shapes \(2, 2\) and None"):
        combined(one | {"b": torch.zeros(2, 2)}, one, (0.5, 0.5))
