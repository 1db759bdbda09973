"""Where the regularized objective rose: counted by the loop, and by plain sums over what it recorded."""

from dataclasses import replace

import numpy as np
import pytest

from finetune.training.loop import train
from finetune.training.run import CellState, TrainingRun
from finetune.training.settings import TrainingSettings
from tests.finetune.training.problems import ADAM, DESCENT, Kept, LinearProblem

LAMBDAS = (0.5, 2.0, 8.0)


def objectives(problem: LinearProblem, run: TrainingRun) -> np.ndarray:
    """(1/n) sum of losses + (lambda/2n) |d|^2, (K, S), from the outputs and distances that were recorded."""
    targets = problem.targets.train.numpy()
    outputs = np.stack(run.trajectory.train_outputs)
    losses = 0.5 * ((outputs - targets.reshape(outputs.shape[2:])) ** 2).sum(axis=(2, 3)) / problem.n
    return losses + np.array(LAMBDAS) / (2 * problem.n) * np.stack(run.trajectory.distances) ** 2


def trained(problem: LinearProblem, settings: TrainingSettings, checkpoint: Kept | None = None) -> TrainingRun:
    return train(problem.model(3), problem.targets, settings, LAMBDAS, seed=0, checkpoint=checkpoint)


@pytest.mark.parametrize("overshoot", [0.9, 1.7, 2.03], ids=["stable", "oscillating", "rising"])
def test_rises_of_descent_are_those_of_its_steps(overshoot: float):
    problem = LinearProblem()
    rate = overshoot * problem.n / (np.linalg.norm(problem.jacobian, 2) ** 2 + max(LAMBDAS))
    settings = replace(DESCENT, learning_rate=rate, steps=40, eval_steps=1)
    run = trained(problem, settings)
    found = objectives(problem, run)
    np.testing.assert_allclose(np.stack(run.trajectory.objectives), found, rtol=1e-12)
    risen = (np.diff(found, axis=0) > 1e-13 * found[:-1]).sum(axis=0)
    assert [cell.rises for cell in run.cells] == risen.tolist()
    assert run.trajectory.rises[-1].tolist() == risen.tolist()
    # Descent below 2/(s_max + lambda) never raises the objective, and beyond it does in the end.
    assert (risen[-1] > 0) == (overshoot > 2)
    # Steps count, also those at which nothing is evaluated.
    seldom = trained(problem, replace(settings, eval_steps=40))
    assert [cell.rises for cell in seldom.cells] == risen.tolist()


def test_rises_of_batches_are_those_of_evaluations():
    problem = LinearProblem()
    run = trained(problem, replace(ADAM, learning_rate=0.6, batch_size=2, steps=60, eval_steps=4))
    found = objectives(problem, run)
    risen = np.cumsum(np.diff(found, axis=0) > 0, axis=0)
    assert risen[-1].min() > 0
    np.testing.assert_array_equal(np.stack(run.trajectory.rises)[1:], risen)


def test_a_killed_run_counts_no_rise_twice_and_none_too_few():
    problem = LinearProblem()
    rate = 2.03 * problem.n / (np.linalg.norm(problem.jacobian, 2) ** 2 + max(LAMBDAS))
    settings = replace(DESCENT, learning_rate=rate, steps=12, eval_steps=3)
    whole = trained(problem, settings)
    for stop_after in (1, 5, 12):
        killed = Kept(stop_after=stop_after)
        with pytest.raises(KeyboardInterrupt):
            trained(problem, settings, killed)
        again = trained(problem, settings, Kept(arrays=killed.arrays))
        assert [cell.rises for cell in again.cells] == [cell.rises for cell in whole.cells]


def test_rounding_is_no_rise_unless_it_adds_up():
    cell = CellState({})
    for objective in (1.0, 1.0 + 1e-9, 1.0 + 2e-9):
        cell.follow(objective, 1e-8)
    assert cell.rises == 0
    cell.follow(1.0 + 1.5e-8, 1e-8)
    assert cell.rises == 1
