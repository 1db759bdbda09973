"""Distance of a trained model from its linearization, computed one example at a time."""

import math

import numpy as np
import pytest

from finetune.analysis.difference import output_difference


def softmax(logits: list[float]) -> list[float]:
    powers = [math.exp(each) for each in logits]
    return [each / sum(powers) for each in powers]


def two_logits(outputs: list[float]) -> list[float]:
    return outputs if len(outputs) > 1 else [0.0, *outputs]


@pytest.mark.parametrize("n_outputs", [1, 2, 3])
def test_each_number_is_its_definition(n_outputs: int) -> None:
    drawn = np.random.default_rng(n_outputs)
    trained, linearized = drawn.normal(size=(2, 4, 6, n_outputs))
    initial = drawn.normal(size=(6, n_outputs))
    found = output_difference(trained, linearized, initial, kind="classification")
    for cell, (f, f_lin) in enumerate(zip(trained, linearized, strict=True)):
        apart = math.dist(f.ravel(), f_lin.ravel())
        assert found["relative"][cell] == pytest.approx(apart / math.hypot(*f.ravel()))
        assert found["relative_to_change"][cell] == pytest.approx(apart / math.dist(f.ravel(), initial.ravel()))
        logits = [(two_logits(one), two_logits(other)) for one, other in zip(f.tolist(), f_lin.tolist(), strict=True)]
        kl = [
            sum(p * math.log(p / q) for p, q in zip(softmax(one), softmax(other), strict=True)) for one, other in logits
        ]
        assert found["kl"][cell] == pytest.approx(sum(kl) / 6)
        agreed = [one.index(max(one)) == other.index(max(other)) for one, other in logits]
        assert found["agreement"][cell] == pytest.approx(sum(agreed) / 6)
    assert 0 < found["agreement"].mean() < 1


def test_a_rating_has_no_classes_and_what_did_not_move_has_no_share_of_its_change() -> None:
    start = np.ones((3, 1))
    found = output_difference(np.stack([start, 0 * start]), np.stack([start, start]), start, kind="regression")
    assert found.keys() == {"relative", "relative_to_change"}
    np.testing.assert_array_equal(found["relative"], [0, np.nan])
    np.testing.assert_array_equal(found["relative_to_change"], [np.nan, 1])
