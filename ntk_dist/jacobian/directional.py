"""Exact derivatives of a batch's scores along a direction in parameter space, without Jacobian rows.

By reverse mode alone, which every operator that can be trained has: J^T u along v is linear in u, and its own gradient
with respect to u is J v (Townsend, "A new trick for calculating Jacobian vector products", 2017). It takes neither
differences nor vmap, which attention masks break.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ntk_dist.errors import NonFiniteError, NtkError
from ntk_dist.jacobian.places import Place, place_of, replaced
from ntk_dist.jacobian.tracked import Groups, check_groups


class DirectionError(NtkError):
    """A direction does not fit the tracked parameters."""


@dataclass(frozen=True, eq=False)
class _Piece:
    """The place of one tracked parameter, and its share of a direction."""

    place: Place
    along: Tensor


@torch.inference_mode(mode=False)
def second_directional_derivative(
    score: Callable[[], Tensor], groups: Groups, direction: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of a batch and their first and second derivatives in t at theta + t v, t = 0.

    Attention runs in its plain form, since the fused ones cannot be differentiated twice; so the scores may differ
    from those of `jacobian_rows` by rounding.

    Args:
        score: runs the model, in eval mode, on the batch and returns (B, R) scores; called once.
        groups: the tracked modules by group.
        direction: v, by group a vector (p_g,), in the order of the columns of `jacobian_rows`; it is taken in the
            dtype of the parameters.

    Returns:
        The scores and their derivatives, each (B, R), detached; zero where nothing tracked is reached. The first
        derivative is J v: the sum over groups of rows_g @ v_g.

    Raises:
        DirectionError: a group without a vector, a vector without a group, or one of another shape.
        NonFiniteError: the direction, a score or a derivative is NaN or infinite.
        NtkError: the scores are not a matrix, or a tracked parameter is computed from others.
        TiedWeightsError: a parameter is tracked twice.
    """
    scores, first, second = _by_double_backward(score, _pieces(groups, direction))
    check_finite(first, "a directional derivative")
    check_finite(second, "a second directional derivative")
    return scores, first, second


@contextmanager
def displaced(groups: Groups, displacement: Mapping[str, Tensor]) -> Iterator[None]:
    """Add `displacement` to the tracked parameters inside this context.

    The parameters themselves are put aside and return untouched, bit by bit. Whatever shares one with a
    tracked module (a tied embedding) keeps the old value; `jacobian_rows` refuses it.

    Args:
        groups: the tracked modules by group.
        displacement: by group a vector (p_g,), as the direction of `second_directional_derivative`.

    Raises:
        DirectionError, NonFiniteError, NtkError, TiedWeightsError: as in `second_directional_derivative`.
    """
    pieces = _pieces(groups, displacement)
    moved = [
        nn.Parameter(piece.place.parameter.detach() + piece.along, requires_grad=piece.place.parameter.requires_grad)
        for piece in pieces
    ]
    with replaced([piece.place for piece in pieces], moved):
        yield


def _by_double_backward(score: Callable[[], Tensor], pieces: Sequence[_Piece]) -> tuple[Tensor, Tensor, Tensor]:
    """Scores and their first and second derivatives, each (B, R).

    The product <u, scores> is differentiated twice in t, and each result, which is linear in u, once in u. To
    differentiate the derivatives (B, R) in t once more instead is silently wrong: beyond the second backward pass,
    torch's layer_norm takes mean and deviation for constants (pytorch#175754).
    """
    with torch.enable_grad():
        # without axes it leaves the dtype of the parameters alone
        t = torch.zeros((), dtype=torch.float64, requires_grad=True)
        moved = [piece.place.parameter.detach() + t * piece.along for piece in pieces]
        with replaced([piece.place for piece in pieces], moved):
            scores = plain_scores(score)
        u = torch.zeros_like(scores, requires_grad=True)
        product = (u * scores).sum()
        derivatives: list[Tensor] = []
        for _ in range(2):
            # the score may not depend on t, or be linear in it: then there is nothing left, which counts as zero
            (product,) = torch.autograd.grad(product, t, create_graph=True, materialize_grads=True)
            derivatives += torch.autograd.grad(product, u, retain_graph=True, materialize_grads=True)
    first, second = derivatives
    return scores.detach(), first, second


def plain_scores(score: Callable[[], Tensor]) -> Tensor:
    """Return the scores (B, R) of a batch, with attention in its plain form, which can be differentiated twice.

    Raises:
        NonFiniteError: a score is NaN or infinite.
        NtkError: the scores are not a matrix.
    """
    with sdpa_kernel(SDPBackend.MATH):
        scores = score()
    if scores.ndim != 2:
        raise NtkError(f"the scores must be (examples, outputs), not of shape {tuple(scores.shape)}")
    check_finite(scores.detach(), "a score")
    return scores


def _pieces(groups: Groups, direction: Mapping[str, Tensor]) -> list[_Piece]:
    """The direction, cut into one tensor for each tracked parameter, in its shape and dtype."""
    check_groups(groups)
    if unmatched := groups.keys() ^ direction.keys():
        raise DirectionError(f"groups and direction differ in {sorted(unmatched)}; give one vector for each group")
    pieces: list[_Piece] = []
    for group, linears in groups.items():
        size = sum(linear.n_parameters for linear in linears)
        if direction[group].shape != (size,):
            raise DirectionError(
                f"the direction of group {group} must be of shape ({size},), one number for each column of its "
                f"rows, not {tuple(direction[group].shape)}"
            )
        start = 0
        for linear in linears:
            for parameter in linear.parameters:
                along = direction[group].detach()[start : start + parameter.numel()]
                # copied: a tensor made in inference mode takes no part in a backward pass
                along = along.reshape(parameter.shape).to(parameter, copy=True)
                pieces.append(_Piece(place_of(linear, parameter), along))
                start += parameter.numel()
        if not all(bool(torch.isfinite(piece.along).all()) for piece in pieces):
            raise NonFiniteError(f"the direction of group {group} is NaN or infinite in the dtype of its parameters")
    return pieces


def check_finite(values: Tensor, what: str) -> None:
    """Check values (B, ...) of a batch.

    Raises:
        NonFiniteError: one is NaN or infinite; the message says `what` it is, and names the example.
    """
    bad = ~torch.isfinite(values).all(dim=1)
    if bool(bad.any()):
        raise NonFiniteError(
            f"{what} is NaN or infinite for example {int(bad.nonzero()[0])} of the batch; check its text, "
            "or use dtype float64 if the model overflows"
        )
