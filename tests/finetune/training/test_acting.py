"""Updates at which a regularizer acts, and a cell's own evaluations, against training written out step by step."""

from dataclasses import replace

import numpy as np
import pytest

from finetune.training.loop import Targets, train
from finetune.training.run import CellStatus, TrainingRun
from finetune.training.settings import TrainingSettings
from tests.finetune.training.problems import ADAM, DESCENT, Kept, LinearProblem, flat

SPD = replace(ADAM, regularizer="spd", learning_rate=0.05, steps=40, batch_size=6, eval_steps=8)


def adam_with_projection(
    problem: LinearProblem, strength: float, settings: TrainingSettings
) -> tuple[np.ndarray, list]:
    """Descend with Adam as Kingma and Ba write it, project; return weights, and how many tensors each step changed."""
    sizes = [p.numel() for linear in problem.linears for p in linear.parameters]
    tensors = [slice(end - size, end) for size, end in zip(sizes, np.cumsum(sizes), strict=True)]
    J, r = problem.jacobian, problem.residual[:, 0]
    d, m, v = (np.zeros(J.shape[1]) for _ in range(3))
    changed = []
    for t in range(1, settings.steps + 1):
        g, old = J.T @ (J @ d - r) / problem.n, d
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        d = d - settings.learning_rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        count = 0
        for place in tensors:
            new, before = np.linalg.norm(d[place]), np.linalg.norm(old[place])
            if g[place] @ old[place] > 0 and new > before:
                d[place] *= 1 - strength * (new - before) / new
                count += 1
        changed.append(count)
    return d, changed


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_a_projection_is_counted_where_it_changes_a_tensor(strength: float):
    problem = LinearProblem()
    run = train(problem.model(), problem.targets, SPD, [strength], seed=0)
    (cell,) = run.cells
    weights, changed = adam_with_projection(problem, strength, SPD)
    assert np.linalg.norm(flat(cell.kept) - weights) < 1e-9 * np.linalg.norm(weights)
    steps = np.array(changed) > 0
    assert not steps[0]
    assert 0 < steps.sum() < len(steps)
    assert (cell.updates, cell.pulled) == (SPD.steps, steps.sum())
    assert cell.pulled_tensors == pytest.approx(np.sum(changed) / 3)  # two weights and a bias
    for step, pulled, tensors in zip(*seen(run), strict=True):
        assert pulled[0] == steps[:step].sum()
        assert tensors[0] == pytest.approx(np.sum(changed[:step]) / 3)


def seen(run: TrainingRun) -> tuple[list[int], list[np.ndarray], list[np.ndarray]]:
    return run.trajectory.steps, run.trajectory.pulled, run.trajectory.pulled_tensors


def test_the_selective_pull_acts_where_descent_leads_back_and_not_before():
    problem = LinearProblem()
    J, r, lambdas = problem.jacobian, problem.residual[:, 0], (0.02, 3.0, 40.0)
    largest = np.linalg.norm(J, 2) ** 2
    settings = replace(DESCENT, regularizer="selective", steps=60)
    small = replace(settings, learning_rate=0.9 * problem.n / largest)
    run = train(problem.model(3), problem.targets, small, lambdas, seed=0)
    assert [cell.pulled for cell in run.cells] == [0, 0, 0]
    assert np.ptp(run.trajectory.distances[-1]) < 1e-15

    large = replace(settings, learning_rate=1.7 * problem.n / largest)
    weak = (0.02, 0.3, 1.0)
    run = train(problem.model(3), problem.targets, large, weak, seed=0)
    for cell, strength in zip(run.cells, weak, strict=True):
        d, acted = np.zeros(J.shape[1]), 0
        for _ in range(large.steps):
            g = J.T @ (J @ d - r) / problem.n
            acts = g @ d >= 0 and d.any()
            d, acted = d - large.learning_rate * (g + acts * strength / problem.n * d), acted + acts
        assert np.linalg.norm(flat(cell.kept) - d) < 1e-9 * np.linalg.norm(d)
        assert 0 < cell.pulled == acted < large.steps


@pytest.mark.parametrize("regularizer", ["l2sp", "decoupled"])
def test_a_penalty_acts_at_every_update_but_the_first(regularizer: str):
    problem = LinearProblem()
    settings = replace(ADAM, regularizer=regularizer, steps=9)
    (cell, free) = train(problem.model(2), problem.targets, settings, [0.1, 0.0], seed=0).cells
    assert (cell.updates, cell.pulled, cell.pulled_tensors) == (9, 8, 8)
    assert (free.updates, free.pulled, free.pulled_tensors) == (9, 0, 0)


def stopping(problem: LinearProblem) -> tuple[Targets, TrainingSettings, list[float]]:
    """Return a problem whose cells stop early at different evaluations, diverge, or are trained to the end."""
    rate = 0.5 * problem.n / np.linalg.norm(problem.jacobian, 2) ** 2
    settings = replace(DESCENT, learning_rate=rate, steps=40, early_stopping_patience=2, eval_steps=2)
    return problem.targets, settings, [1e-3, 3.0, 30.0, 1e4]


@pytest.mark.parametrize("seed", [0, 3])
def test_a_cell_is_looked_at_while_it_is_trained_whoever_is_trained_beside_it(seed: int):
    problem = LinearProblem(seed=seed)
    targets, settings, lambdas = stopping(problem)
    together = train(problem.model(len(lambdas)), targets, settings, lambdas, seed=0)
    evaluations = [cell.evaluations for cell in together.cells]
    assert len(set(evaluations)) > 1
    for number, (cell, strength) in enumerate(zip(together.cells, lambdas, strict=True)):
        alone = train(problem.model(), targets, settings, [strength], seed=0)
        (own,) = alone.cells
        assert len(alone.trajectory.steps) == own.evaluations == cell.evaluations
        assert (own.status, own.kept_evaluation, own.failed_step) == (
            cell.status,
            cell.kept_evaluation,
            cell.failed_step,
        )
        for name in ("train_outputs", "eval_outputs", "distances", "pulled", "pulled_tensors"):
            found = np.array([values[number] for values in getattr(together.trajectory, name)])
            expected = np.array([values[0] for values in getattr(alone.trajectory, name)])
            np.testing.assert_allclose(found[: cell.evaluations], expected, rtol=1e-9, atol=1e-12)
            assert np.isnan(found[cell.evaluations :]).all()


def test_a_loss_that_explodes_at_the_last_step_is_no_finished_cell():
    problem = LinearProblem()
    settings = replace(DESCENT, learning_rate=1.0, steps=2, eval_steps=1)
    wild, tame = train(problem.model(2), problem.targets, settings, [1e8, 0.0], seed=0).cells
    assert (wild.status, wild.failed_step, wild.kept_evaluation, wild.evaluations) == (CellStatus.DIVERGED, 2, 1, 3)
    assert (tame.status, tame.kept_evaluation) == (CellStatus.FINISHED, 2)


def test_cells_that_an_evaluation_ends_are_kept_as_they_ended():
    problem, kept = LinearProblem(), OnlyWhenItMatters()
    settings = replace(DESCENT, learning_rate=1.0, steps=9, eval_steps=2)
    run = train(problem.model(2), problem.targets, settings, [1e8, 1e8], seed=0, checkpoint=kept)
    assert [(cell.status, cell.failed_step) for cell in run.cells] == [(CellStatus.DIVERGED, 2)] * 2
    again = train(problem.model(2), problem.targets, settings, [1e8, 1e8], seed=0, checkpoint=kept)
    assert [cell.updates for cell in again.cells] == [2, 2]
    assert kept.saves == 2  # once each: nothing was left to train


class OnlyWhenItMatters(Kept):
    """A checkpoint for which it is never time."""

    def due(self) -> bool:
        return False


def test_an_observer_that_fails_at_the_last_evaluation_costs_no_step():
    problem = LinearProblem()
    settings = replace(DESCENT, steps=5, eval_steps=2, learning_rate=0.01)
    kept, evaluations = OnlyWhenItMatters(), []

    def failing(displacements: dict) -> dict:
        evaluations.append(list(displacements))
        if len(evaluations) == 4:
            raise ZeroDivisionError
        return {"one": np.ones(len(displacements))}

    with pytest.raises(ZeroDivisionError):
        train(problem.model(2), problem.targets, settings, [1.0, 2.0], seed=0, checkpoint=kept, observer=failing)
    assert kept.arrays is not None
    assert int(kept.arrays["step"][0]) == 5
    again = train(problem.model(2), problem.targets, settings, [1.0, 2.0], seed=0, checkpoint=kept, observer=failing)
    assert [cell.updates for cell in again.cells] == [5, 5]
    assert (again.trajectory.steps, evaluations) == ([0, 2, 4, 5], [[0, 1]] * 5)
    assert len(again.trajectory.observed["one"]) == 4
