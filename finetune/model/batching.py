"""Checks that an example's outputs and rows do not depend on its batch or on earlier examples, by measurement.

Architectures that fail: FNet's Fourier transform and ConvBERT's convolution see padding, BigBird changes its
attention at a short text, and experts of a limited capacity take the tokens that come first.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from finetune.data.tokens import TokenizedTexts
from finetune.errors import BatchingError, FinetuneError
from finetune.model.architecture import linears
from finetune.model.model_state import ModelState, undone
from ntk_dist.jacobian.batches import Batch

Found = tuple[Tensor, Mapping[str, Tensor]]
"""Scores (B, R) and Jacobian rows (B, R, p_g) by group of a batch, as the `rows` of a scorer gives them."""

Rows = Callable[[Batch], Found]

EXACT = 1e-9
"""Largest relative error in double precision."""

ROUNDOFFS = 50
"""Largest relative error in single precision, in unit roundoffs, or in changes that one unit roundoff causes."""

_LARGEST = 1e-2
_DRAWS = 2
_SMALL_GROUP = 1e-2
"""Rows of a group that are smaller than this share of all rows are compared with that share: gradients cancel there.
So are all rows of a text that are smaller than this share of those of the longest one: of a single token, attention to
it is constant, and what is computed of its gradients is rounding."""

_ALONE = (
    "set compute.batching: alone, with which every text goes through the model by itself and finds it as it was loaded"
)


@dataclass(frozen=True, eq=False)
class TrialTexts:
    """The texts that are tried.

    Attributes:
        short: a text.
        long: a longer one, or one of the same length where there is none.
        middle: one of a length in between, if there is one: nothing in the attention of a text of one token can change.
        beside: the first, and longer ones that share batches with it, if any do.
        crowd: several that do, the first among them last.
    """

    short: Batch
    long: Batch
    beside: Batch
    crowd: Batch
    middle: Batch | None = None

    @classmethod
    def of(cls, texts: TokenizedTexts, *, batch_tokens: int, crowd: int) -> "TrialTexts":
        """Choose the shortest, the longest and one in between of n texts, and those that share batches with the first.

        Args:
            texts: at least one.
            batch_tokens: most tokens of a batch.
            crowd: most texts of a batch.
        """
        lengths = texts.lengths
        order = np.argsort(lengths, kind="stable")
        first, others = order[:1], order[1:]
        longest = [number for number in others[: len(others) * (crowd > 1)] if 2 * lengths[number] <= batch_tokens][-1:]
        several = crowd > 2 and bool(longest) and 3 * lengths[longest[0]] <= batch_tokens
        between = _between(order, lengths, lengths[longest[0]]) if several else None
        nearest = enumerate(others[: crowd - 1], 2)
        near = [number for n_texts, number in nearest if n_texts * lengths[number] <= batch_tokens]
        middle = _between(order, lengths, lengths[order[-1]])
        return cls(
            texts.batch(first),
            texts.batch(order[-1:]),
            texts.batch([*first, *([] if between is None else [between]), *longest]),
            texts.batch([*near, *first]),
            None if middle is None else texts.batch([middle]),
        )


def _between(order: NDArray[np.int64], lengths: NDArray[np.int64], longest: int) -> int | None:
    """Return the middle one of the texts longer than the shortest and shorter than `longest`; None if there is none."""
    found = [number for number in order if lengths[order[0]] < lengths[number] < longest]
    return int(found[len(found) // 2]) if found else None


def check_batching(model: nn.Module, rows: Rows, texts: TrialTexts, *, alone: bool) -> None:
    """Check that scores and rows of an example do not depend on its batch, on examples before it, or on chance.

    In double precision they have to agree to 1e-9 of their norm. In single precision they have to agree to 50 unit
    roundoffs, or, if that is more, to 50 times the change from one further rounding in every linear module.

    Args:
        model: the model, whose modules are named in messages; left as it was.
        rows: gives scores and rows of a batch.
        texts: what is tried.
        alone: whether every example goes through the model by itself, so that only chance is left.

    Raises:
        BatchingError: they do.
    """
    trial = _Trial(model, rows, texts)
    with undone(model):
        trial.check_repeated() if alone else trial.check_together()


def draws_at_random(name: str, where: str = "") -> BatchingError:
    """Return the error of a model that gives other numbers each time; `where` follows, as ", first in ..."."""
    return BatchingError(
        f"{name} gives a text other numbers each time: it draws at random{where}, and has no Jacobian; look in its "
        "config.json for a setting without random numbers, or use another model"
    )


class _Trial:
    """The passes of the check; each starts from the model as it was loaded, unless its method says otherwise."""

    def __init__(self, model: nn.Module, rows: Rows, texts: TrialTexts) -> None:
        self._model = model
        self._rows = rows
        self._texts = texts
        self._name = type(model).__name__
        self._short = self._alone(texts.short)
        self._long = self._alone(texts.long)
        self._least = _SMALL_GROUP * max(self._short.found.size, self._long.found.size)

    def check_repeated(self) -> None:
        for before in (self._short, self._long):
            again = self._as_loaded(before.batch)
            if not self._agree(again, before):
                raise draws_at_random(self._name, self._where(before, before.batch))

    def check_together(self) -> None:
        self._check_one_after_another()
        texts = self._texts
        if len(texts.beside) > 1:
            self._check_beside(texts.beside, "a longer one")
        if len(texts.crowd) > 1:
            self._check_beside(texts.crowd, f"{len(texts.crowd) - 1} others")

    def _check_one_after_another(self) -> None:
        """Check a text after a longer one, and longer ones after that, without restoring the model in between."""
        texts = self._texts
        middle = None if texts.middle is None else self._alone(texts.middle)
        with undone(self._model):
            first = self._take(texts.long)
            before = ModelState(self._model)
            short = self._take(texts.short)
            change = before.first_change()
            again = self._take(texts.long)
            between = None if texts.middle is None else self._take(texts.middle)
        is_kept = middle is None or between is None or self._agree(between, middle)
        after_shorter = self._agree(again, _Text(texts.long, first)) and self._agree(first, self._long)
        after_longer = self._agree(short, self._short)
        if after_longer and after_shorter and is_kept:
            return
        self.check_repeated()
        what = f", which changes {change}" if change else ""
        order = "a longer text after a shorter one" if after_longer and is_kept else "a text after a longer one"
        raise BatchingError(
            f"{self._name} gives {order} other numbers than by itself: it keeps something from one text to the next"
            f"{what}; {_ALONE}, or use another model"
        )

    def _check_beside(self, batch: Batch, whom: str) -> None:
        """Check every text of a batch, from the shortest on, since padding changes the shortest ones most."""
        with undone(self._model):
            found = self._rows(batch)
        apart = batch.apart()
        for position in np.argsort(batch.last_positions.tolist(), kind="stable").tolist():
            text = self._alone(apart[position])
            if not self._agree(_Example.of(found, position), text):
                self._refuse(text, batch, position, whom)

    def _refuse(self, text: "_Text", batch: Batch, position: int, whom: str) -> NoReturn:
        self.check_repeated()
        error = self._as_loaded(batch, position).error(text.found, self._least)
        where = self._where(text, batch, position)
        level = _level(batch, position)
        why = f"it computes across the texts of a batch{where}"
        if level is not None and not self._agrees_beside(level, position, text):
            whom = "one of the same length"
        elif level is not None and not self._agree(self._as_loaded(_one_of(batch, position)), text):
            why = f"padding reaches the text itself{where}"
        raise BatchingError(
            f"{self._name} gives a text of {text.batch.input_ids.shape[1]} tokens other numbers beside {whom} than by "
            f"itself ({error:.1e} of their norm): {why}; {_ALONE}, or use another model"
        )

    def _agrees_beside(self, batch: Batch, position: int, text: "_Text") -> bool:
        try:
            return self._agree(self._as_loaded(batch, position), text)
        except FinetuneError:
            # a prompt that is cut has no mask
            return True

    def _take(self, batch: Batch, position: int = 0) -> "_Example":
        return _Example.of(self._rows(batch), position)

    def _as_loaded(self, batch: Batch, position: int = 0) -> "_Example":
        with undone(self._model):
            return self._take(batch, position)

    def _alone(self, text: Batch) -> "_Text":
        return _Text(text, self._as_loaded(text))

    def _agree(self, found: "_Example", text: "_Text") -> bool:
        error = found.error(text.found, self._least)
        dtype = found.scores.dtype
        if dtype == torch.float64:
            return error <= EXACT
        roundoff = torch.finfo(dtype).eps / 2
        # measuring one more rounding takes further passes, so it is done only where it can decide
        return error <= ROUNDOFFS * roundoff or error <= min(ROUNDOFFS * self._noise(text, roundoff), _LARGEST)

    def _noise(self, text: "_Text", roundoff: float) -> float:
        with _rounding(self._model, roundoff):
            return max(self._as_loaded(text.batch).error(text.found, self._least) for _ in range(_DRAWS))

    def _where(self, text: "_Text", other: Batch, position: int = 0) -> str:
        """Name the first module whose output for an example of a batch differs, among those with an example axis."""
        expected = dict(self._outputs(text.batch, 0))
        bound = (
            EXACT if text.found.scores.dtype == torch.float64 else ROUNDOFFS * torch.finfo(text.found.scores.dtype).eps
        )
        for (name, call), output in self._outputs(other, position):
            before = expected.get((name, call))
            own = None if before is None else _cropped(output, before)
            if own is not None and before is not None and _relative(own, before, float(before.norm())) > bound:
                return f", first in {name} ({type(self._model.get_submodule(name)).__name__})"
        return ""

    def _outputs(self, batch: Batch, position: int) -> list[tuple[tuple[str, int], Tensor]]:
        """Return the outputs for one example by module and call, in the order in which the modules finish."""
        found: list[tuple[tuple[str, int], Tensor]] = []
        calls: dict[str, int] = {}

        def note(name: str, output: object) -> None:
            first = output[0] if isinstance(output, tuple) and output else output
            calls[name] = calls.get(name, 0) + 1
            if isinstance(first, Tensor) and first.ndim and len(first) == len(batch) and first.is_floating_point():
                found.append(((name, calls[name]), first[position].detach().clone()))

        handles = [
            module.register_forward_hook(lambda _module, _args, output, name=name: note(name, output))
            for name, module in self._model.named_modules()
            if name
        ]
        try:
            self._as_loaded(batch, position)
        finally:
            for handle in handles:
                handle.remove()
        return found


@dataclass(frozen=True, eq=False)
class _Example:
    """Scores (R,) and rows (R, p_g) of one example."""

    scores: Tensor
    rows: Mapping[str, Tensor]

    @classmethod
    def of(cls, found: Found, position: int) -> "_Example":
        scores, rows = found
        return cls(scores[position].clone(), {name: values[position].clone() for name, values in rows.items()})

    @property
    def size(self) -> float:
        """Norm of all rows together."""
        return float(np.hypot.reduce([float(values.norm()) for values in self.rows.values()]))

    def error(self, expected: "_Example", least: float = 0.0) -> float:
        """Return the largest relative error of the scores and of each group; of rows relative to `least` at least."""
        errors = [_relative(self.scores, expected.scores, float(expected.scores.norm()))]
        floor = max(least, _SMALL_GROUP * expected.size)
        errors += [
            _relative(self.rows[name], values, max(floor, float(values.norm())))
            for name, values in expected.rows.items()
        ]
        return max(errors)


@dataclass(frozen=True, eq=False)
class _Text:
    """A text, and the scores and rows that it gives by itself."""

    batch: Batch
    found: _Example


def _level(batch: Batch, position: int) -> Batch | None:
    """Return a batch cut to the length of one of its texts; None if it has that length already."""
    length = int(batch.last_positions[position]) + 1
    if length == batch.input_ids.shape[1]:
        return None
    types = batch.token_type_ids
    return Batch(
        batch.input_ids[:, :length], batch.attention_mask[:, :length], None if types is None else types[:, :length]
    )


def _one_of(batch: Batch, position: int) -> Batch:
    """Return one text of a batch with the padding that it has there."""
    own = slice(position, position + 1)
    types = batch.token_type_ids
    return Batch(batch.input_ids[own], batch.attention_mask[own], None if types is None else types[own])


def largest_error(found: Found, expected: Found, position: int) -> float:
    """Return the largest relative error of an example of a batch against what it gave alone."""
    return _Example.of(found, position).error(_Example.of(expected, 0))


def one_score(logits: Tensor) -> Tensor:
    """Return one linear combination (B, 1) of all logits (B, C), so that one row stands for all C."""
    weights = torch.linspace(1, 2, logits.shape[1], dtype=logits.dtype, device=logits.device)
    return (logits * weights).sum(dim=1, keepdim=True)


@contextmanager
def _rounding(model: nn.Module, roundoff: float) -> Iterator[None]:
    """Change every number that a linear module returns by one unit roundoff, up or down, inside this context."""
    draw = torch.Generator().manual_seed(0)

    def rounded(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
        signs = torch.randint(0, 2, output.shape, generator=draw).to(output) * 2 - 1
        return output * (1 + roundoff * signs)

    handles = [module.register_forward_hook(rounded) for module in linears(model).values()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _cropped(output: Tensor, before: Tensor) -> Tensor | None:
    """Return an output cut to the shape of another, from the start of each axis; None if it is smaller."""
    if output.ndim != before.ndim or any(own < size for own, size in zip(output.shape, before.shape, strict=True)):
        return None
    return output[tuple(slice(size) for size in before.shape)]


def _relative(found: Tensor, expected: Tensor, size: float) -> float:
    difference = float((found - expected).norm())
    return difference / size if size else difference
