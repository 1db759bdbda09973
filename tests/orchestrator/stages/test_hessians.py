"""Hessians of outputs around theta_0 and at trained weights: those of dense ones, in a table, planned with the rest."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetune.scorers import build_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from finetune.training.smoothness import random_direction
from orchestrator.errors import ResultsError, SpecError
from orchestrator.plan.plan import Plan
from orchestrator.spec import read_spec
from orchestrator.stages.context.tokenized import read_tokens
from orchestrator.stages.finetune.trained_cells import TrainedCells
from orchestrator.stages.smoothness import Smoothed, cost
from orchestrator.sweep.folder import ResultsFolder
from tests.dense_hessian import dense_hessian
from tests.orchestrator.stages.trained_sweeps import TRAINING, training
from tests.orchestrator.sweeps import ntksweep, plan_of, results_of, run_spec, write_spec

RADII, EXAMPLES = (0.0, 0.5), 2
SMOOTHNESS = TRAINING | {"stacked_cells": 1, "smoothness": {"radii": RADII, "examples": EXAMPLES}}
GRID: dict[str, Any] = {"grid.layer_sets": [{"groups": [["1.value"]]}, {"layers": [[1]]}]}


@pytest.fixture(scope="module")
def smooth(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The spec of a finished sweep with the table `smoothness`; nobody changes its results."""
    spec = training(tmp_path_factory.mktemp("smooth"), tiny_model, SMOOTHNESS, **GRID)
    assert not run_spec(spec).report.failures
    return spec


class Dense:
    """Dense Hessians of the outputs that a sweep measures, at any weights."""

    def __init__(self, spec: Path, plan: Plan) -> None:
        settings = read_spec(spec)
        self.scorer = build_scorer(
            ModelSettings(settings.model.path, dtype="float64"),
            AdapterSettings(**settings.adapter.model_dump(exclude={"seed"})),
            HeadSettings("random"), n_outputs=2, adapter_seed=0, head_seed=0,
        )  # fmt: skip
        (dataset,) = plan.filled_by(Smoothed)[0].stage.inputs["dataset"]
        self.store = ResultsFolder(settings.folder).artifacts()
        self.tokens = read_tokens(self.store.open(*dataset), "eval", 0, EXAMPLES)

    def norms(self, groups: tuple[str, ...], change: dict[str, torch.Tensor]) -> np.ndarray:
        """Return the norms of all outputs of the examples, with changed weights."""
        scorer = copy.deepcopy(self.scorer)
        linears = [linear for group in groups for linear in scorer.trained[group]]
        with torch.no_grad():
            for linear in linears:
                for part, parameter in linear.named_parameters():
                    parameter.add_(change.get(f"{linear.name}.{part}", torch.zeros(())))
        parameters = [parameter for linear in linears for parameter in linear.parameters]
        found = [
            np.abs(np.linalg.eigvalsh(self._hessian(scorer, example, output, parameters))).max()
            for example in range(EXAMPLES)
            for output in range(2)
        ]
        return np.array(found)

    def _hessian(self, scorer: Any, example: int, output: int, parameters: list[torch.Tensor]) -> np.ndarray:
        return dense_hessian(lambda: scorer.logits(self.tokens.batch([example]))[0, output], parameters)

    def along(self, groups: tuple[str, ...], radius: float) -> dict[str, torch.Tensor]:
        """Return the displacement by r along the random direction, by parameter."""
        trained = {group: self.scorer.trained[group] for group in groups}
        change: dict[str, torch.Tensor] = {}
        for group, vector in random_direction(trained, seed=0).items():
            parameters = [
                (f"{linear.name}.{part}", parameter)
                for linear in trained[group]
                for part, parameter in linear.named_parameters()
            ]
            parts = vector.split([parameter.numel() for _, parameter in parameters])
            for (name, parameter), part in zip(parameters, parts, strict=True):
                change[name] = radius * part.view(parameter.shape)
        return change


def test_every_row_has_the_norms_of_dense_hessians(smooth: Path):
    plan = run_spec(smooth).plan
    dense, table = Dense(smooth, plan), results_of(smooth).smoothness.to_pandas()
    cells = results_of(smooth).cells.to_pandas().set_index("cell_id")
    assert len(table) == 2 * (len(RADII) + 2)
    assert (table["hessian_residual"] <= 1.5e-8).all()
    assert (table["examples"] == EXAMPLES).all()
    for smoothed in plan.filled_by(Smoothed):
        layer_set = smoothed.solve.layer_sets[smoothed.comparison.layer_set]
        rows = table[table["layer_set"] == layer_set.name]
        points = []
        if 0 in smoothed.comparison.lambdas:
            at_random = rows[rows["place"] == "random"]
            assert at_random[["cell_id", "lambda_given"]].isna().all(axis=None)
            assert at_random["distance"].tolist() == pytest.approx(list(RADII), rel=1e-12)
            points += [(row, dense.along(layer_set.groups, row["distance"])) for _, row in at_random.iterrows()]
        strength = plan.lambdas[next(iter(smoothed.comparison.in_grid.values()))]
        ((_, row),) = rows[rows["lambda_given"] == strength].iterrows()
        assert row["place"] == "trained"
        assert row["distance"] == pytest.approx(cells.loc[row["cell_id"], "finetune_distance"], rel=1e-10)
        ((_, trained),) = smoothed.stage.inputs["trained"]
        run = TrainedCells(dense.store.open("finetune", trained), smoothed.stage.parameters.compared.run)
        points.append((row, run.displacement(0)))
        for row, change in points:
            norms = dense.norms(layer_set.groups, change)
            assert row["hessian_norm_max"] == pytest.approx(norms.max(), rel=1e-10)
            assert row["hessian_norm_mean"] == pytest.approx(norms.mean(), rel=1e-10)


def test_the_largest_is_an_upper_bound_of_the_curvature_along_one_way(smooth: Path):
    table = results_of(smooth).smoothness.to_pandas()
    assert (table["hessian_norm_max"] >= table["hessian_norm_mean"]).all()
    assert (table["hessian_norm_mean"] > 0).all()


def test_outputs_are_linear_in_the_head_alone(tmp_path: Path, tiny_model: Path):
    changes = {"head.in_kernel": True, "grid.layer_sets": [{"groups": [["head"]]}], "adapter.target_modules": ["query"]}
    spec = training(tmp_path, tiny_model, SMOOTHNESS, **changes)
    assert not run_spec(spec).report.failures
    table = results_of(spec).smoothness.to_pandas()
    assert len(table) == len(RADII) + 2
    assert not table[["hessian_norm_max", "hessian_norm_mean", "hessian_residual"]].any(axis=None)


def test_a_head_that_is_trained_outside_the_kernel_is_differentiated_too(tmp_path: Path, tiny_model: Path):
    changes = {"head.in_kernel": False, "grid.layer_sets": [{"layers": [[1]]}]}
    heads = {}
    for trained in (True, False):
        spec = training(tmp_path / str(trained), tiny_model, SMOOTHNESS | {"train_head": trained}, **changes)
        assert not run_spec(spec).report.failures
        heads[trained] = results_of(spec).smoothness.to_pandas()["hessian_norm_max"].iloc[0]
    # The Hessian without the head is a block of that with it.
    assert heads[True] > heads[False]


def test_weights_at_which_outputs_are_not_finite_have_no_norm(tmp_path: Path, tiny_model: Path):
    changed = SMOOTHNESS | {"smoothness": {"radii": [1e200, 1.0], "examples": 1}}
    spec = training(tmp_path, tiny_model, changed, **{"grid.layer_sets": [{"layers": [[1]]}]})
    assert not run_spec(spec).report.failures
    table = results_of(spec).smoothness.to_pandas()
    assert table["hessian_norm_max"].isna().tolist() == [True, False, False, False]


# --- plan


def test_the_table_joins_a_finished_sweep_and_leaves_it(tmp_path: Path, tiny_model: Path, smooth: Path):
    without = {name: value for name, value in SMOOTHNESS.items() if name != "smoothness"}
    spec = training(tmp_path, tiny_model, without, **GRID)
    first = run_spec(spec)
    with pytest.raises(ResultsError, match=r"give the spec `finetune\.smoothness` and run"):
        results_of(spec).table("smoothness")
    changes = {"model.path": str(tiny_model), "finetune": SMOOTHNESS} | GRID
    write_spec(tmp_path, changes)
    ending = run_spec(spec)
    assert {stage.kind for stage in ending.plan.stages if stage not in first.plan.stages} == {"smoothness"}
    assert ending.report.computed == 2 * 2
    assert results_of(spec).smoothness.to_arrow().equals(results_of(smooth).smoothness.to_arrow())
    write_spec(tmp_path, changes | {"finetune": without})
    assert run_spec(spec).report.computed == 0


def test_radii_are_measured_once_a_layer_set():
    plan = plan_of({"finetune": SMOOTHNESS | {"stacked_cells": 1}} | GRID)
    stages = [each.stage for each in plan.filled_by(Smoothed)]
    assert sorted(len(stage.parameters.radii) for stage in stages) == [0, 0, 2, 2]


def test_cost_and_memory_are_told_before_and_grow_with_what_is_asked(tmp_path: Path, tiny_model: Path):
    costs = []
    for examples in (1, 2):
        settings = SMOOTHNESS | {"smoothness": {"radii": RADII, "examples": examples}}
        plan = plan_of({"finetune": settings} | GRID)
        costs.append(cost(plan.filled_by(Smoothed)[0].stage, plan.variants[0]))
    assert costs[1].model_flops == pytest.approx(2 * costs[0].model_flops)
    assert costs[0].memory_bytes > 0
    planned = ntksweep("plan", training(tmp_path, tiny_model, SMOOTHNESS, **GRID))
    assert planned.status == 0
    (line,) = [line for line in planned.output.splitlines() if line.startswith("smoothness")]
    assert "-" not in line.split()


# --- bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"radii": [-1.0]}, "radii"),
        ({"radii": []}, "radii"),
        ({"examples": 0}, "examples"),
        ({"radius": [1.0]}, "radii"),
    ],
)
def test_what_cannot_be_measured_is_refused(changes: dict[str, Any], message: str, tmp_path: Path):
    with pytest.raises(SpecError, match=message):
        read_spec(write_spec(tmp_path, {"finetune": SMOOTHNESS | {"smoothness": changes}}))


def test_a_sharded_model_is_refused(tmp_path: Path):
    sharded = {"model.dtype": "float32", "sharding": {"group_size": 2}}
    with pytest.raises(SpecError, match=r"finetune\.smoothness differentiates the model twice") as refused:
        read_spec(write_spec(tmp_path, {"finetune": SMOOTHNESS} | sharded))
    assert str(refused.value).count("smoothness") == 1
