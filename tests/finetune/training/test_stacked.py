"""The model with several cells' weights is each cell's model, trained as plain autograd trains it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from finetune.training.linearized import LinearizedModel, LinearRows
from finetune.training.loop import train
from finetune.training.stacked import displaced_stack
from ntk_dist.jacobian.capture import jacobian_rows
from tests.finetune.training.problems import (
    ADAM,
    DESCENT,
    GROUPS,
    Kept,
    coded_targets,
    flat,
    scorer_of,
    stacked_of,
    texts_of,
)
from tests.tiny_models import ALL_TARGETS, KINDS, Kind, save_tiny

LAMBDAS = (0.1, 1.0, 10.0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: save_tiny(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_each_cells_outputs_are_those_of_a_model_with_its_weights(folders: dict[str, Path], kind: Kind, adapter: str):
    scorer = scorer_of(folders[kind], target_modules=ALL_TARGETS[kind][1:], kind=adapter)
    groups = list(scorer.groups)
    model = stacked_of(folders[kind], scorer, 3, groups)
    draw = torch.Generator().manual_seed(1)
    for displacement in model.displacements:
        for tensor in displacement.values():
            tensor.data.normal_(0, 0.3, generator=draw)
    positions = np.array([4, 0, 2])
    stacked = model.outputs("train", [positions], [2, 0]).detach()
    batch = texts_of(folders[kind])["train"].batch(positions)
    for place, cell in enumerate((2, 0)):
        other = scorer_of(folders[kind], target_modules=ALL_TARGETS[kind][1:], kind=adapter)
        for group in groups:
            for linear in other.trained[group]:
                for part, parameter in linear.named_parameters():
                    parameter.data += model.displacements[cell][f"{linear.name}.{part}"].detach()
        expected = other.logits(batch).detach()
        assert torch.allclose(stacked[place], expected, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(stacked[0], stacked[1], rtol=1e-3)
    assert "forward" not in model.linears[0].module.__dict__


def test_forwards_are_restored_when_the_model_fails(folders: dict[str, Path]):
    model = stacked_of(folders["bert"], scorer_of(folders["bert"]))
    with pytest.raises(ZeroDivisionError), displaced_stack(model.linears, model.displacements):
        raise ZeroDivisionError
    assert all("forward" not in linear.module.__dict__ for linear in model.linears)


def reference(folder: Path, strength: float, steps: int, rate: float) -> dict[str, torch.Tensor]:
    """Descend with torch alone: the parameters themselves, one example at a time, autograd of the whole objective."""
    scorer = scorer_of(folder)
    texts, targets = texts_of(folder)["train"], coded_targets().train
    parameters = {
        f"{linear.name}.{part}": parameter
        for group in GROUPS for linear in scorer.trained[group] for part, parameter in linear.named_parameters()
    }  # fmt: skip
    start = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    for parameter in parameters.values():
        parameter.requires_grad_()
    optimizer = torch.optim.SGD(parameters.values(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        losses = [0.5 * ((scorer.logits(texts.batch([i]))[0] - targets[i]) ** 2).sum() for i in range(len(texts))]
        distance = sum(((parameters[name] - start[name]) ** 2).sum() for name in parameters)
        ((sum(losses) + strength / 2 * distance) / len(texts)).backward()
        optimizer.step()
    return {name: (parameters[name] - start[name]).detach() for name in parameters}


def test_descent_is_that_of_plain_autograd_one_example_at_a_time(folders: dict[str, Path]):
    folder = folders["bert"]
    model = stacked_of(folder, scorer_of(folder), 3)
    settings = replace(DESCENT, learning_rate=0.05, steps=8)
    run = train(model, coded_targets(), settings, LAMBDAS, seed=0)
    for cell, strength in zip(run.cells, LAMBDAS, strict=True):
        expected = reference(folder, strength, 8, 0.05)
        assert cell.kept.keys() == expected.keys()
        assert np.linalg.norm(flat(cell.kept) - flat(expected)) < 1e-10 * np.linalg.norm(flat(expected))
        assert any("lora_A" in name and tensor.any() for name, tensor in cell.kept.items())


@pytest.mark.parametrize("regularizer", ["l2sp", "selective", "spd", "decoupled"])
@pytest.mark.parametrize(("dtype", "limit"), [("float64", 1e-9), ("float32", 2e-3)])
def test_stacked_cells_are_trained_as_each_by_itself(
    folders: dict[str, Path], regularizer: str, dtype: str, limit: float
):
    folder = folders["bert"]
    settings = replace(ADAM, regularizer=regularizer, max_grad_norm=1.0, batch_size=3)
    strengths = (0.1, 0.5, 1.0)
    targets = coded_targets(getattr(torch, dtype))
    scorer = scorer_of(folder, dtype=dtype)
    together = train(stacked_of(folder, scorer, 3), targets, settings, strengths, seed=2)
    for cell, strength in zip(together.cells, strengths, strict=True):
        (alone,) = train(stacked_of(folder, scorer), targets, settings, [strength], seed=2).cells
        assert np.linalg.norm(flat(cell.kept) - flat(alone.kept)) < limit * np.linalg.norm(flat(alone.kept))


def test_a_killed_run_of_the_model_goes_on_with_the_same_bits(folders: dict[str, Path]):
    folder = folders["bert"]
    scorer, strengths = scorer_of(folder, dtype="float32"), (0.1, 1.0)
    targets = coded_targets(torch.float32)
    whole = train(stacked_of(folder, scorer, 2), targets, ADAM, strengths, seed=2)
    kept = Kept(stop_after=5)
    with pytest.raises(KeyboardInterrupt):
        train(stacked_of(folder, scorer, 2), targets, ADAM, strengths, seed=2, checkpoint=kept)
    again = train(stacked_of(folder, scorer, 2), targets, ADAM, strengths, seed=2, checkpoint=kept)
    for one, other in zip(whole.cells, again.cells, strict=True):
        assert np.array_equal(flat(one.kept), flat(other.kept))


def test_far_from_nothing_the_model_follows_its_linearization(folders: dict[str, Path]):
    """With a strong pull the weights stay near, and the trained model is the trained linearization."""
    folder = folders["bert"]
    scorer, texts = scorer_of(folder), texts_of(folder)
    tracked = {group: scorer.groups[group] for group in GROUPS}
    rows = {}
    for split, tokens in texts.items():
        batch = tokens.batch(range(len(tokens)))
        scores, found = jacobian_rows(lambda batch=batch: scorer.logits(batch), tracked)
        rows[split] = LinearRows(scores, torch.cat([found[group] for group in GROUPS], dim=2))
    linears = [linear for group in GROUPS for linear in tracked[group]]
    strengths, differences = (1e2, 1e3, 1e4), []
    settings = replace(DESCENT, learning_rate=5e-4, steps=80, eval_steps=80)
    model = train(stacked_of(folder, scorer, 3), coded_targets(), settings, strengths, seed=0)
    linear = train(LinearizedModel(rows, linears, 3), coded_targets(), settings, strengths, seed=0)
    for cell in range(3):
        f, f_lin = (run.trajectory.train_outputs[-1][cell] for run in (model, linear))
        moved = np.linalg.norm(f - model.trajectory.train_outputs[0][cell])
        differences.append(np.linalg.norm(f - f_lin) / moved)
    assert differences[0] > differences[1] > differences[2]
    assert differences[2] < 0.05
