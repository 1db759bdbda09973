"""The choice of examples; training-set sizes, splits and seeds do what users take for granted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data.sampling import Sampling, check_balance, sample
from finetune.data.task import Examples, Pool
from finetune.errors import SamplingError, TooFewExamplesError

SAMPLINGS: tuple[Sampling, ...] = ("random", "balanced", "first")


def examples_of(n_train: int, n_eval: int | None, classes: int = 2) -> Examples:
    """As many examples of each class in both splits, in random order; no split of their own for None."""

    def pool(n: int) -> Pool:
        labels = np.random.default_rng(7).permutation(np.arange(n) % classes)
        return Pool(["x"] * n, None, labels, np.arange(n))

    train = pool(n_train)
    return Examples(train, train if n_eval is None else pool(n_eval), classes)


@given(
    seed=st.integers(0, 99), k=st.integers(1, 10), more=st.integers(0, 10), n_eval=st.integers(1, 20),
    held_out=st.booleans(), sampling=st.sampled_from(SAMPLINGS), classes=st.integers(2, 4),
)  # fmt: skip
def test_samples_are_nested_and_disjoint(seed, k, more, n_eval, held_out, sampling, classes):
    examples = examples_of(40 * classes, None if held_out else 30, classes)
    n_train, larger = k * classes, (k + more) * classes
    small = sample(examples, n_train=n_train, n_eval=n_eval, seed=seed, sampling=sampling)
    large = sample(examples, n_train=larger, n_eval=n_eval, seed=seed, sampling=sampling)
    assert np.array_equal(large.train[:n_train], small.train)
    assert np.array_equal(large.evaluation, small.evaluation)
    assert len(set(small.train.tolist())) == n_train
    assert len(set(small.evaluation.tolist())) == n_eval
    if held_out:
        assert not set(large.train.tolist()) & set(large.evaluation.tolist())


@given(seed=st.integers(0, 99), k=st.integers(1, 10), held_out=st.booleans(), classes=st.integers(2, 4))
def test_balanced_samples_have_k_examples_of_each_class_in_turn(seed, k, held_out, classes):
    examples = examples_of(40 * classes, None if held_out else 30, classes)
    drawn = sample(examples, n_train=k * classes, n_eval=9, seed=seed, sampling="balanced")
    assert examples.train.labels[drawn.train].tolist() == list(range(classes)) * k
    # balance is asked of the training examples alone
    plain = sample(examples, n_train=k * classes, n_eval=9, seed=seed)
    assert np.array_equal(drawn.evaluation, plain.evaluation)


@pytest.mark.parametrize("sampling", ["random", "balanced"])
def test_seeds_draw_different_samples(sampling):
    draws = [sample(examples_of(60, 60), n_train=20, n_eval=20, seed=seed, sampling=sampling) for seed in (0, 1)]
    assert not np.array_equal(draws[0].train, draws[1].train)
    assert not np.array_equal(draws[0].evaluation, draws[1].evaluation)
    assert not np.array_equal(draws[0].train, draws[0].evaluation)


@pytest.mark.parametrize("n_eval_pool", [None, 12])
def test_the_first_rows_are_taken_as_they_stand(n_eval_pool):
    for seed in (0, 1):
        drawn = sample(examples_of(60, n_eval_pool), n_train=5, n_eval=3, seed=seed, sampling="first")
        assert drawn.train.tolist() == [0, 1, 2, 3, 4]
        assert drawn.evaluation.tolist() == ([57, 58, 59] if n_eval_pool is None else [0, 1, 2])


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize(
    ("n_eval_pool", "n_train", "n_eval", "message"),
    [
        (None, 50, 11, "50 training and 11 held-out evaluation examples are asked for, but there are 60"),
        (5, 62, 5, "62 training examples are asked for, but there are 60"),
        (5, 50, 6, "6 evaluation examples are asked for, but there are 5"),
    ],
)
def test_too_few_examples(n_eval_pool, n_train, n_eval, message, sampling):
    with pytest.raises(TooFewExamplesError, match=message):
        sample(examples_of(60, n_eval_pool), n_train=n_train, n_eval=n_eval, seed=0, sampling=sampling)


def test_too_few_examples_of_a_class():
    pool = Pool(["x"] * 20, None, np.array([0, 1] * 4 + [0] * 12), np.arange(20))
    with pytest.raises(TooFewExamplesError, match="5 training examples of class 1 are asked for, but there are 4"):
        sample(Examples(pool, examples_of(9, None).train, 2), n_train=10, n_eval=2, seed=0, sampling="balanced")
    with pytest.raises(TooFewExamplesError, match="2 training examples of class 2 are asked for, but there are 0"):
        sample(Examples(pool, pool, 3), n_train=6, n_eval=2, seed=0, sampling="balanced")


@pytest.mark.parametrize(("n_train", "nearest"), [(10, "take 9 or 12"), (2, "take 3")])
def test_balanced_samples_are_multiples_of_the_number_of_classes(n_train, nearest):
    message = rf"n_train must be a multiple of 3, not {n_train}; {nearest}"
    with pytest.raises(SamplingError, match=message):
        check_balance(n_train, 3)
    with pytest.raises(SamplingError, match=message):
        sample(examples_of(60, 60, 3), n_train=n_train, n_eval=2, seed=0, sampling="balanced")


def test_ratings_cannot_be_balanced():
    pool = Pool(["x"] * 8, None, np.linspace(-1, 1, 8), np.arange(8))
    with pytest.raises(SamplingError, match="needs classes: use random for regression"):
        sample(Examples(pool, pool, 1), n_train=4, n_eval=2, seed=0, sampling="balanced")
