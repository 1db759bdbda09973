"""The loop against the algebra: closed forms, step by step formulas, killed runs, runs that fail."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from finetune.training.loop import Targets, train, train_cells
from finetune.training.run import SEEN, CellStatus
from finetune.training.settings import Cell, TrainingSettings
from finetune.training.stepping import learning_rate, step_batches
from ntk_dist.solvers.eigen import EigenDecomposition
from ntk_dist.solvers.trajectory import gradient_descent
from tests.finetune.training.problems import ADAM, DESCENT, Kept, LinearProblem, flat

LAMBDAS = (0.5, 2.0, 8.0)


def ridge(problem: LinearProblem, strength: float) -> np.ndarray:
    J, r = problem.jacobian, problem.residual
    return np.linalg.solve(J.T @ J + strength * np.eye(J.shape[1]), J.T @ r)[:, 0]


def stable_rate(problem: LinearProblem, strength: float) -> float:
    """The learning rate 1/(s_max + lambda) of the summed loss, for the mean over examples."""
    return problem.n / (np.linalg.norm(problem.jacobian, 2) ** 2 + strength)


@pytest.mark.parametrize("regularizer", ["l2sp", "decoupled"])
def test_descent_meets_the_closed_form(regularizer: str):
    problem = LinearProblem()
    settings = replace(
        DESCENT,
        regularizer=regularizer,
        learning_rate=stable_rate(problem, max(LAMBDAS)),
        steps=2000,
        eval_steps=2000,
    )
    run = train(problem.model(3), problem.targets, settings, LAMBDAS, seed=0)
    for cell, strength in zip(run.cells, LAMBDAS, strict=True):
        d = ridge(problem, strength)
        assert np.linalg.norm(flat(cell.kept) - d) < 1e-6 * np.linalg.norm(d)
        assert cell.status is CellStatus.FINISHED


def test_adam_and_momentum_meet_the_closed_form_with_a_schedule_that_ends_at_zero():
    problem = LinearProblem()
    for optimizer, rate in (("adamw", 0.05), ("sgd", 0.3 * stable_rate(problem, 8.0))):
        settings = replace(
            ADAM, optimizer=optimizer, learning_rate=rate, steps=1500, batch_size=6, lr_scheduler_type="linear",
            warmup_steps=10, eval_steps=1500, momentum=0.9,
        )  # fmt: skip
        run = train(problem.model(3), problem.targets, settings, LAMBDAS, seed=0)
        for cell, strength in zip(run.cells, LAMBDAS, strict=True):
            d = ridge(problem, strength)
            assert np.linalg.norm(flat(cell.kept) - d) < 1e-4 * np.linalg.norm(d), optimizer


def test_every_step_of_descent_is_that_of_the_formula():
    problem = LinearProblem()
    rate = 0.7 * stable_rate(problem, 2.0)
    settings = replace(DESCENT, learning_rate=rate, steps=30, eval_steps=1)
    run = train(problem.model(2), problem.targets, settings, LAMBDAS[:2], seed=0)
    kernel = EigenDecomposition(problem.jacobian @ problem.jacobian.T)
    steps = np.array(run.trajectory.steps)
    # The loop divides the objective by the number of examples.
    exact = gradient_descent(kernel, problem.residual, np.array(LAMBDAS[:2]), rate / problem.n, steps)
    for evaluation, outputs in enumerate(run.trajectory.train_outputs):
        residuals = problem.targets.train.numpy().ravel() - outputs.reshape(2, -1)
        expected = exact.train_residuals[evaluation, :, :, 0]
        assert np.linalg.norm(residuals - expected) < 1e-10 * np.linalg.norm(problem.residual)
        assert np.allclose(
            run.trajectory.distances[evaluation] ** 2, exact.squared_distance[evaluation], rtol=1e-9, atol=1e-12
        )


def test_batches_of_an_epoch_hold_every_example_once_and_follow_the_seed():
    lengths = np.arange(1, 8)
    settings = replace(ADAM, batch_size=2, gradient_accumulation_steps=2)
    epochs = [np.concatenate([np.concatenate(step_batches(settings, lengths, step, 5, 2)) for step in steps])
              for steps in ((0, 1), (2, 3))]  # fmt: skip
    assert [sorted(epoch) for epoch in epochs] == [list(range(7))] * 2
    assert not np.array_equal(*epochs)
    assert np.array_equal(epochs[0][:4], np.concatenate(step_batches(settings, lengths, 0, 5, 2)))
    assert [len(batch) for batch in step_batches(settings, lengths, 1, 5, 2)] == [2, 1]


def test_accumulated_batches_make_the_step_of_one_large_batch():
    problem = LinearProblem()
    large = replace(ADAM, batch_size=4, optimizer="sgd")
    small = replace(large, batch_size=2, gradient_accumulation_steps=2)
    runs = [train(problem.model(), problem.targets, each, [1.0], seed=1) for each in (large, small)]
    assert np.allclose(flat(runs[0].cells[0].kept), flat(runs[1].cells[0].kept), rtol=1e-12)


@pytest.mark.parametrize("settings", [DESCENT, replace(ADAM, batch_size=5)])
def test_batches_that_had_to_be_cut_give_the_same_steps(settings: TrainingSettings):
    problem = LinearProblem()
    settings = replace(settings, steps=6, learning_rate=0.01)
    whole, cut = (
        train(problem.model(), problem.targets, settings, [1.0], seed=1, at_once=at_once) for at_once in (None, 2)
    )
    assert np.allclose(flat(whole.cells[0].kept), flat(cut.cells[0].kept), rtol=1e-9)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1, 1, None, 0.5, None]),
    ],
)
def test_the_learning_rate_rises_and_falls(schedule: str, rates: list[float | None]):
    settings = replace(ADAM, lr_scheduler_type=schedule, warmup_steps=2, steps=6, learning_rate=1.0)
    for step, rate in enumerate(rates):
        if rate is not None:
            assert learning_rate(settings, step) == pytest.approx(rate)


def test_a_clipped_gradient_makes_a_step_of_at_most_the_norm():
    problem = LinearProblem()
    settings = replace(DESCENT, learning_rate=1.0, steps=1, max_grad_norm=1e-3)
    run = train(problem.model(), problem.targets, settings, [1.0], seed=0)
    assert np.linalg.norm(flat(run.cells[0].kept)) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize(
    "settings", [ADAM, replace(ADAM, optimizer="sgd", momentum=0.9), replace(ADAM, early_stopping_patience=1)]
)
@pytest.mark.parametrize("stop_after", [1, 4, 7])
def test_a_killed_run_goes_on_with_the_same_bits(settings: TrainingSettings, stop_after: int):
    problem = LinearProblem()
    whole = train(problem.model(2), problem.targets, settings, LAMBDAS[:2], seed=3)
    kept = Kept(stop_after)
    with pytest.raises(KeyboardInterrupt):
        train(problem.model(2), problem.targets, settings, LAMBDAS[:2], seed=3, checkpoint=kept)
    again = train(problem.model(2), problem.targets, settings, LAMBDAS[:2], seed=3, checkpoint=kept)
    for one, other in zip(whole.cells, again.cells, strict=True):
        assert np.array_equal(flat(one.kept), flat(other.kept))
        assert (one.status, one.kept_evaluation, one.evaluations) == (
            other.status,
            other.kept_evaluation,
            other.evaluations,
        )
        assert (one.updates, one.pulled, one.pulled_tensors) == (other.updates, other.pulled, other.pulled_tensors)
    assert whole.trajectory.steps == again.trajectory.steps
    for name in SEEN:
        pairs = zip(getattr(whole.trajectory, name), getattr(again.trajectory, name), strict=True)
        assert all(np.array_equal(one, other, equal_nan=True) for one, other in pairs)


def test_a_cell_that_diverges_ends_with_what_was_last_seen_and_the_others_go_on():
    problem = LinearProblem()
    rate = 1.9 * stable_rate(problem, 0.0)
    settings = replace(DESCENT, learning_rate=rate, steps=400, eval_steps=5)
    # The pull of the first is so strong that descent with this step overshoots more and more.
    run = train(problem.model(2), problem.targets, settings, [1e3, 0.0], seed=0)
    wild, tame = run.cells
    assert (wild.status, tame.status) == (CellStatus.DIVERGED, CellStatus.FINISHED)
    assert wild.failed_step is not None
    assert 0 < wild.failed_step < 400
    assert np.isfinite(flat(wild.kept)).all()
    assert run.trajectory.steps[wild.kept_evaluation] <= wild.failed_step
    alone = train(problem.model(), problem.targets, settings, [0.0], seed=0)
    assert np.allclose(flat(tame.kept), flat(alone.cells[0].kept), rtol=1e-9)


def test_a_loss_that_is_not_finite_ends_the_cell_at_once():
    problem = LinearProblem()
    targets = problem.targets
    targets.train[0, 0] = torch.nan
    run = train(problem.model(), targets, DESCENT, [1.0], seed=0)
    assert (run.cells[0].status, run.cells[0].failed_step) == (CellStatus.DIVERGED, 0)
    assert run.trajectory.steps == [0]


def test_early_stopping_keeps_the_best_weights():
    problem = LinearProblem()
    # Evaluation targets that the first outputs meet exactly: every step makes them worse.
    initial = problem.__dict__["eval"][1]
    targets = Targets(problem.targets.train, torch.from_numpy(initial.copy()))
    settings = replace(DESCENT, learning_rate=stable_rate(problem, 1.0), early_stopping_patience=2, eval_steps=3)
    run = train(problem.model(), targets, settings, [1.0], seed=0)
    assert run.cells[0].status is CellStatus.STOPPED_EARLY
    assert run.trajectory.steps == [0, 3, 6]
    assert run.cells[0].kept_evaluation == 0
    assert not flat(run.cells[0].kept).any()


def test_what_is_recorded_is_what_the_model_says():
    problem = LinearProblem()
    model = problem.model(2)
    run = train(model, problem.targets, replace(ADAM, steps=4, eval_steps=4), [1.0, 2.0], seed=0)
    J, f, _ = problem.__dict__["eval"]
    for cell in range(2):
        d = flat(model.displacements[cell])
        assert np.allclose(run.trajectory.eval_outputs[-1][cell], f + J @ d, rtol=1e-12)
        assert run.trajectory.distances[-1][cell] == pytest.approx(np.linalg.norm(d))


class Told:
    """Keeps what a watcher is told."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, dict[int, float]]] = []
        self.evaluations: list[tuple[int, dict[int, float], dict[int, float]]] = []

    def stepped(self, step: int, losses: Mapping[int, float]) -> None:
        self.steps.append((step, dict(losses)))

    def evaluated(self, step: int, train_losses: Mapping[int, float], eval_losses: Mapping[int, float]) -> None:
        self.evaluations.append((step, dict(train_losses), dict(eval_losses)))


def test_a_watcher_is_told_the_losses_of_every_step_and_evaluation():
    problem, told = LinearProblem(), Told()
    settings = replace(DESCENT, steps=4, eval_steps=2, learning_rate=0.5 * stable_rate(problem, max(LAMBDAS)))
    cells = [Cell(strength, settings.learning_rate) for strength in LAMBDAS]
    run = train_cells(problem.model(3), [problem.targets], settings, cells, seeds=[0], watcher=told)
    alone = train_cells(problem.model(3), [problem.targets], settings, cells, seeds=[0])
    targets = [part.numpy() for part in (problem.targets.train, problem.targets.eval)]
    assert [step for step, _ in told.steps] == [1, 2, 3, 4]
    assert [step for step, _, _ in told.evaluations] == run.trajectory.steps == [0, 2, 4]
    for number, (step, *losses) in enumerate(told.evaluations):
        seen = (run.trajectory.train_outputs[number], run.trajectory.eval_outputs[number])
        for outputs, target, of_cells in zip(seen, targets, losses, strict=True):
            for cell in range(3):
                expected = 0.5 * ((outputs[cell] - target.reshape(outputs[cell].shape)) ** 2).sum(axis=1).mean()
                assert of_cells[cell] == pytest.approx(expected, rel=1e-12)
        if step < 4:  # gradient descent takes all examples, and the loss is that before the update
            assert told.steps[step][1] == pytest.approx(losses[0], rel=1e-9)
    for cell, without in zip(run.cells, alone.cells, strict=True):
        assert np.array_equal(flat(cell.kept), flat(without.kept))
