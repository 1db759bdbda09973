"""The kind `finetune`: trains the cells of some lambdas of a layer set, of one seed or several, in one model."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from finetune.training.settings import TrainingSettings
from orchestrator.spec.grid_section import LambdaScale
from orchestrator.stages.base.parameters import ProblemParameters
from orchestrator.store.stage import UNNAMED_IF_NONE, Part, Stage, StageCost, StageKind

if TYPE_CHECKING:
    from orchestrator.sweep.variant import Variant


@dataclass(frozen=True)
class CellsParameters:
    """Everything that fixes the training of some cells of a layer set, in the model and in its linearization.

    Attributes:
        problem: the regression problem, with the examples that they are trained on.
        groups: groups of the layer set.
        lambdas: those of the cells, as the spec gives them.
        lambda_scale: their unit.
        training: settings of the training.
        seed: seed of the order of examples.
        train_head: whether a head outside the kernel is trained too.
        kernel_n_train: the kernel's training examples, whose trace is the unit of lambda; None for those of `problem`.
    """

    problem: ProblemParameters
    groups: tuple[str, ...]
    lambdas: tuple[float, ...]
    lambda_scale: LambdaScale
    training: TrainingSettings
    seed: int
    train_head: bool
    kernel_n_train: int | None = field(default=None, metadata=UNNAMED_IF_NONE)

    @property
    def n_captured(self) -> int:
        """Training examples that the kernel has, and so Jacobian rows and outputs at the pretrained point."""
        return self.problem.n_train if self.kernel_n_train is None else self.kernel_n_train


@dataclass(frozen=True)
class RunParameters:
    """Parameters of a training run.

    Attributes:
        cells: the cells.
        model: the model itself, or its linearization.
        linearization: how a linearization is trained: from the kernel's rows, or by products; None for the model.
        kernel_examples: first training examples whose kernel is followed.
        frozen_layers: layers below the trained ones that are computed once; None for all of them.
    """

    cells: CellsParameters
    model: Literal["nonlinear", "linearized"]
    linearization: Literal["rows", "products"] | None
    kernel_examples: int
    frozen_layers: int | None

    @property
    def problem(self) -> ProblemParameters:
        """The regression problem."""
        return self.cells.problem


@dataclass(frozen=True)
class FinetuneParameters:
    """Parameters of a stage `finetune`: its runs, which one model holds. They differ in seeds or learning rates."""

    runs: tuple[RunParameters, ...]


Run = Part[RunParameters]


def finetune_stage(runs: Sequence[Run]) -> Stage[FinetuneParameters]:
    """Return the stage that does some training runs in one model: runs of the model, or one of its linearization."""
    inputs = {f"{role}.{number}": ids for number, run in enumerate(runs) for role, ids in run.inputs.items()}
    return Stage(FINETUNE, FinetuneParameters(tuple(run.parameters for run in runs)), inputs)


def runs_of(stage: Stage[FinetuneParameters]) -> list[Run]:
    """Return the training runs of a stage."""
    return [Part(run, stage.inputs_of(str(number))) for number, run in enumerate(stage.parameters.runs)]


def cost(stage: Stage[FinetuneParameters], variant: "Variant") -> StageCost:
    """Return the cost of all its runs."""
    from orchestrator.stages.finetune.costs import run_cost

    return sum((run_cost(run, variant) for run in runs_of(stage)), StageCost())


def cells_label(cells: CellsParameters) -> str:
    """Return the groups and the number of lambdas of some cells."""
    return f"{'+'.join(cells.groups)}, {len(cells.lambdas)} lambdas from {cells.lambdas[0]:g}"


def training_label(stage: Stage[FinetuneParameters]) -> str:
    """Return what a stage trains, for people who watch: the model, its layers, seeds and lambdas, in few words."""
    runs = stage.parameters.runs
    cells = runs[0].cells
    seeds = list(dict.fromkeys(run.cells.seed for run in runs))
    rates = {run.cells.training.learning_rate for run in runs}
    parts = [
        "fine-tuned" if runs[0].model == "nonlinear" else "linearized",
        layers_label(cells.groups),
        f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds",
        *([f"{len(rates)} learning rates"] if len(rates) > 1 else []),
        f"lambda {cells.lambdas[0]:g}"
        if len(cells.lambdas) == 1
        else f"lambdas {cells.lambdas[0]:g} to {cells.lambdas[-1]:g}",
    ]
    return ", ".join(parts)


def layers_label(groups: Sequence[str]) -> str:
    """Return the layers and what else some groups belong to, such as `layers 0-3, 7 and head`."""
    layers = sorted({int(layer) for layer in (group.partition(".")[0] for group in groups) if layer.isdigit()})
    others = list(dict.fromkeys(group for group in groups if not group.partition(".")[0].isdigit()))
    ranges: list[list[int]] = []
    for layer in layers:
        if ranges and layer == ranges[-1][-1] + 1:
            ranges[-1][1:] = [layer]
        else:
            ranges.append([layer])
    named = [f"layer{'s' if len(layers) > 1 else ''} " + ", ".join("-".join(map(str, each)) for each in ranges)]
    return " and ".join([*(named if layers else []), *others])


def _label(stage: Stage[FinetuneParameters]) -> str:
    first, count = stage.parameters.runs[0], len(stage.parameters.runs)
    seeds = f", {count} seeds or learning rates" if count > 1 else ""
    return f"finetune ({first.model}) of {cells_label(first.cells)}{seeds}"


def _reads_rows(variant: "Variant") -> str:
    return "training reads them" if variant.sweep.spec.finetune is not None else ""


FINETUNE = StageKind(
    name="finetune",
    parameters=FinetuneParameters,
    version=7,
    meaning="trains the model, or its linearization, with some lambdas of a layer set",
    module="orchestrator.stages.finetune.compute",
    cost=cost,
    label=_label,
    runs_model=True,
    reads_rows=_reads_rows,
    advice="raise the budget, ask for fewer examples or layers, or set finetune.prefix_cache: false or, unless the "
    "model is sharded (`sharding`), finetune.linearization: products",
)
