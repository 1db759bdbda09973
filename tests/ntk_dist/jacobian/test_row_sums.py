"""In which precision rows are summed, and in which they come."""

import pytest
import torch
from torch import Tensor, nn

from ntk_dist.errors import NonFiniteError
from ntk_dist.jacobian.capture import jacobian_rows
from ntk_dist.jacobian.tracked import Groups, TrackedLinear

HALVES = (torch.bfloat16, torch.float16)


def make(dtype: torch.dtype) -> tuple[nn.Linear, Groups, Tensor]:
    torch.manual_seed(0)
    linear = nn.Linear(3, 4).to(dtype).requires_grad_(False)
    return linear, {"all": [TrackedLinear(linear, "linear", bias=True)]}, torch.randn(2, 3000, 3).to(dtype)


def rows_of(
    dtype: torch.dtype, row_dtype: torch.dtype | None = None, scale: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, rows and inputs of a network whose score is a sum of outputs over many positions, in its precision."""
    linear, groups, x = make(dtype)
    scores, rows = jacobian_rows(lambda: scale * linear(x)[:, :, :2].sum(dim=1), groups, row_dtype=row_dtype)
    return scores, rows["all"], x


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_is_summed_in_single_precision(dtype: torch.dtype):
    scores, rows, x = rows_of(dtype)
    assert rows.dtype == scores.dtype == torch.float32
    expected = x.double().sum(dim=1)
    for output in range(2):
        weight, bias = rows[:, output, :12].view(2, 4, 3), rows[:, output, 12:]
        # a sum in half precision would end where its steps are too small to count
        assert torch.allclose(weight[:, output].double(), expected, rtol=1e-4, atol=1e-3)
        assert torch.equal(bias[:, output], torch.full((2,), 3000.0))


@pytest.mark.parametrize(
    ("dtype", "row_dtype"),
    [
        (torch.float32, torch.float64), (torch.float64, torch.float32), (torch.float32, torch.float16),
        (torch.bfloat16, torch.float64), (torch.bfloat16, torch.float16),
    ],
)  # fmt: skip
def test_rows_and_scores_come_in_the_precision_that_is_asked_for(dtype: torch.dtype, row_dtype: torch.dtype):
    scores, rows, _ = rows_of(dtype, row_dtype)
    own_scores, own, _ = rows_of(dtype)
    assert rows.dtype == scores.dtype == row_dtype
    assert torch.allclose(rows.double(), own.double(), rtol=2 * torch.finfo(row_dtype).eps + 1e-5, atol=1e-3)
    assert torch.equal(scores, own_scores.to(row_dtype)) or dtype in HALVES


def test_a_lower_precision_rounds_once_at_the_end():
    assert torch.equal(rows_of(torch.float32, torch.float16)[1], rows_of(torch.float32)[1].half())
    assert torch.equal(rows_of(torch.float64, torch.float32)[1], rows_of(torch.float64)[1].float())


def test_a_higher_precision_sums_in_it():
    _, rows, x = rows_of(torch.float32, torch.float64)
    expected = x.double().sum(dim=1)
    assert torch.allclose(rows[:, 0, :12].view(2, 4, 3)[:, 0], expected, rtol=1e-13)


def test_rows_that_float16_cannot_hold_are_named():
    with pytest.raises(NonFiniteError, match=r"is too large for float16, which ends at 65504, for example 0.*float32"):
        rows_of(torch.float32, torch.float16, scale=100.0)
    assert rows_of(torch.float32, torch.float32, scale=100.0)[1].max() > 65504
