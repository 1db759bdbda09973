"""Regularization strengths in units of a kernel."""

import pytest

from orchestrator.errors import SweepError
from orchestrator.stages.solve.path import Strengths


def test_strengths_in_units_of_a_kernel_of_zeros_are_told_by_name():
    assert Strengths((2.0,), "trace").of(3.0, 4).tolist() == [1.5]
    assert Strengths((2.0,), "absolute").of(0.0, 4).tolist() == [2.0]
    with pytest.raises(SweepError, match=r"the kernel of a layer set is zero.* set grid\.lambdas\.scale: absolute"):
        Strengths((2.0,), "trace").of(0.0, 4)
