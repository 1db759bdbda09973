"""Regularization strengths in units of a kernel."""

import numpy as np

from orchestrator.stages.solve.path import Strengths, for_solving


def test_strengths_in_units_of_a_kernel_of_zeros_are_no_numbers():
    assert Strengths((2.0,), "trace").of(3.0, 4).tolist() == [1.5]
    assert Strengths((2.0,), "absolute").of(0.0, 4).tolist() == [2.0]
    unknown = Strengths((2.0, 3.0), "trace").of(0.0, 4)
    assert np.isnan(unknown).tolist() == [True, True]
    assert (for_solving(unknown) > 0).all()
    assert for_solving(np.array([1.5])).tolist() == [1.5]
