"""The stage `compare`: what training did, what the linearization says that it would do, and how far they are apart."""

import numpy as np
import numpy.typing as npt

from finetune.difference import output_difference
from finetune.settings import TaskKind
from ntk_dist.bounds import minimiser_distance_bound, violation
from orchestrator.errors import BrokenBoundError
from orchestrator.stage import Stage
from orchestrator.stages.problem import Problem, load_problem
from orchestrator.stages.trained_cells import TrainedCells
from orchestrator.stages.work import Product, Work

FloatArray = npt.NDArray[np.float64]


def compute(stage: Stage, work: Work) -> Product:
    """Compare; for S cells and K looks the artifact holds the columns of `cells` (S,) and of `trajectories` (K, S).

    They are called `cells.<column>` and `trajectories.<column>`; `updates.<column>` (S, groups) are those of `updates`.
    A cell's own numbers are those of the weights that it ends with. Looks that only one of the two models had, because
    the other ended early, are left out.

    Raises:
        BrokenBoundError: the weights are further from the pretrained ones than is possible.
    """
    problem = load_problem(stage, work)
    runs = {
        "finetune": _Run(problem, TrainedCells(work.input(stage, "trained"), stage.parameters.get("member"))),
        "linearized": _Run(problem, TrainedCells(work.input(stage, "linearized"))),
    }
    n_looks = min(len(run.steps) for run in runs.values())
    initial = runs["finetune"].outputs
    first = {split: values[0, 0] for split, values in initial.items()}

    trajectories: dict[str, FloatArray] = {}
    cells: dict[str, FloatArray] = {}
    for name, run in runs.items():
        trajectories |= {f"{name}_{column}": values for column, values in run.trajectory(n_looks).items()}
        cells |= {f"{name}_{column}": values for column, values in run.cells().items()}
    kind: TaskKind = stage.parameters["task_kind"]
    for split in ("train", "eval"):
        pairs = [run.outputs[split][:n_looks] for run in runs.values()]
        looked = [output_difference(f, f_lin, first[split], kind=kind) for f, f_lin in zip(*pairs, strict=True)]
        trajectories |= {
            f"difference_{split}_{column}": np.stack([each[column] for each in looked]) for column in looked[0]
        }
        f, f_lin = (run.ended(split) for run in runs.values())
        ended = output_difference(f, f_lin, first[split], kind=kind)
        cells |= {f"difference_{split}_{column}": values for column, values in ended.items()}
    cells |= _linearization(runs["finetune"], cells["finetune_distance"])
    cells["finetune_distance_bound"] = _distance_bound(stage, runs["finetune"], cells)
    arrays = {f"cells.{name}": values for name, values in cells.items()}
    arrays |= {f"trajectories.{name}": values for name, values in trajectories.items()}
    weight_norm = runs["finetune"].trained.array("weight_norm")
    arrays |= {"updates.weight_norm": weight_norm}
    for name, run in runs.items():
        # A head outside the kernel is trained beside the layer set, last; the linearization leaves it where it is.
        still = np.zeros((len(weight_norm), weight_norm.shape[1] - run.updates.shape[1]))
        arrays[f"updates.{name}_update_norm"] = np.concatenate([run.updates, still], axis=1)
    arrays |= {"steps": runs["finetune"].steps[:n_looks]}
    facts = {f"{name}_status": run.trained.facts["status"] for name, run in runs.items()}
    return Product(facts, work.write_arrays(stage, arrays))


class _Run:
    """One training run, its outputs as numbers of the task."""

    def __init__(self, problem: Problem, trained: TrainedCells) -> None:
        self.problem = problem
        self.trained = trained
        self.steps = trained.array("steps")
        self.kept = trained.array("kept")
        self.updates = trained.array("update_norm")
        self.outputs: dict[str, FloatArray] = {
            split: np.array(trained.array(f"{split}_outputs"), dtype=np.float64) for split in ("train", "eval")
        }

    def ended(self, split: str) -> FloatArray:
        """Return the outputs (S, n, R) of the weights that each cell ends with."""
        return np.asarray(self.outputs[split][self.kept, np.arange(len(self.kept))])

    def trajectory(self, n_looks: int) -> dict[str, FloatArray]:
        """Return losses, metrics, distances and what was observed, (K, S) each."""
        looks = [self._scores(*(self.outputs[split][look] for split in ("train", "eval"))) for look in range(n_looks)]
        found = {name: np.stack([scores[name] for scores in looks]) for name in looks[0]}
        found["distance"] = self.trained.array("distances")[:n_looks]
        found["pulled"] = self.trained.array("pulled")[:n_looks]
        for name in self.trained.names():
            if name.startswith("observed."):
                found[name.removeprefix("observed.")] = self.trained.array(name)[:n_looks]
        return found

    def cells(self) -> dict[str, FloatArray]:
        """Return the numbers of each cell at its end, (S,) each."""
        place = (self.kept, np.arange(len(self.kept)))
        failed = [np.nan if step is None else step for step in self.trained.facts["failed_step"]]
        found = self._scores(self.ended("train"), self.ended("eval")) | {
            "steps": self.steps[self.kept].astype(np.float64),
            "failed_step": np.array(failed, dtype=np.float64),
            "distance": self.trained.array("distances")[place],
        }
        for name in self.trained.names():
            if name.startswith("observed."):
                found[name.removeprefix("observed.")] = self.trained.array(name)[place]
        return found

    def _scores(self, train: FloatArray, evaluation: FloatArray) -> dict[str, FloatArray]:
        """Return losses and metrics (S,) of outputs (S, n, R) of both splits."""
        scores: dict[str, FloatArray] = {}
        problem = self.problem
        for split, outputs, targets in (
            ("train", train, problem.targets),
            ("eval", evaluation, problem.eval_targets),
        ):
            residuals = outputs - targets.reshape(outputs.shape[1:])
            scores[f"{split}_loss"] = np.einsum("snr,snr->s", residuals, residuals) / (2 * outputs.shape[1])
            scores |= problem.metrics(split, outputs)
        return scores


def _linearization(run: _Run, distance: FloatArray) -> dict[str, FloatArray]:
    """Return what Taylor's formula says of the outputs of a few examples; nothing where they were not followed."""
    if "curvature" not in run.trained.names():
        return {}
    curvature = run.trained.array("curvature")
    return {
        "finetune_curvature": curvature,
        "finetune_linearization_error": run.trained.array("linearization_error"),
        "finetune_linearization_bound": curvature / 2 * distance**2,
    }


def _distance_bound(stage: Stage, run: _Run, cells: dict[str, FloatArray]) -> FloatArray:
    """Return the bound of |theta - theta_0| (S,), nan where the training was not by the objective that has it.

    Raises:
        BrokenBoundError: the objective was lowered, and the bound does not hold all the same.
    """
    training, lambdas = stage.parameters["training"], run.trained.array("lambda")
    if training["loss"] != "squared" or training["regularizer"] != "l2sp":
        return np.full(len(lambdas), np.nan)
    n = run.problem.n_train
    first = n * run.trajectory(1)["train_loss"][0]
    bound = np.array([minimiser_distance_bound(float(loss), lambdas[[cell]])[0] for cell, loss in enumerate(first)])
    distance = cells["finetune_distance"]
    lowered = n * cells["finetune_train_loss"] + lambdas / 2 * distance**2 <= first
    broken = np.flatnonzero(lowered & (violation(distance, bound, bound) > 0))
    if len(broken):
        cell = int(broken[0])
        raise BrokenBoundError(
            f"|theta - theta_0| is {distance[cell]} at lambda {lambdas[cell]} and cannot exceed {bound[cell]}: that is "
            "an error in ntksweep; please report it with the spec"
        )
    return bound
