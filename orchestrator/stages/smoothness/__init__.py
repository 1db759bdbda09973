"""The kind `smoothness`: norms of the outputs' Hessians around the pretrained point, and at trained weights."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.stages.base.cells import Comparison, Filled, Solve
from orchestrator.stages.base.parameters import ProblemParameters
from orchestrator.stages.base.scope import Planning
from orchestrator.stages.compare import CompareParameters
from orchestrator.stages.finetune import Run, RunParameters, cells_label
from orchestrator.stages.smoothness.columns import SMOOTHNESS_TABLE
from orchestrator.store.stage import Part, Stage, StageCost, StageKind
from orchestrator.sweep.passes import forward

if TYPE_CHECKING:
    from orchestrator.sweep.variant import Variant

_PRODUCTS = 40
"""Products that a norm takes, about; each passes forward and backward, and backward through both."""


@dataclass(frozen=True)
class SmoothnessParameters:
    """Parameters of a stage `smoothness`.

    Attributes:
        compared: the trained cells.
        radii: distances from theta_0 along a random direction; none where another stage of the layer set has them.
        examples: first evaluation examples whose outputs are measured.
    """

    compared: CompareParameters
    radii: tuple[float, ...]
    examples: int

    @property
    def problem(self) -> ProblemParameters:
        """The regression problem."""
        return self.compared.problem


@dataclass(frozen=True, kw_only=True)
class Smoothed(Filled):
    """A stage that fills the table `smoothness`, for some lambdas of a layer set.

    Attributes:
        stage: the stage `smoothness`.
        solve: the solve stage of its cells.
        comparison: which of them they are.
    """

    stage: Stage[SmoothnessParameters]
    solve: Solve
    comparison: Comparison


def plan(planning: Planning) -> None:
    """Add the norms at every trained cell, and beside the first of a layer set those around theta_0."""
    finetune = planning.sweep.spec.finetune
    if finetune is None or finetune.smoothness is None:
        return
    section, n_eval = finetune.smoothness, planning.sweep.spec.task.n_eval
    for solve in planning.filled_by(Solve):
        begun = set[int]()  # layer sets
        for comparison in solve.comparisons:
            inputs = {role: ids for role, ids in comparison.stage.inputs.items() if role != "linearized"}
            parameters = SmoothnessParameters(
                compared=comparison.stage.parameters,
                radii=() if comparison.layer_set in begun else section.radii,
                examples=min(section.examples, n_eval),
            )
            planning.fill(Smoothed(
                stage=Stage(SMOOTHNESS, parameters, inputs),
                variant=solve.variant,
                seed=solve.seed,
                n_train=solve.n_train,
                solve=solve,
                comparison=comparison,
            ))  # fmt: skip
            begun.add(comparison.layer_set)


def run_of(stage: Stage[SmoothnessParameters]) -> Run:
    """Return the run that trained the cells, with every layer computed anew: few examples pass."""
    cells = stage.parameters.compared.cells
    return Part(RunParameters(cells, "nonlinear", None, 0, 0), stage.inputs)


def cost(stage: Stage[SmoothnessParameters], variant: "Variant") -> StageCost:
    """Return the cost of the products with the Hessian of every output, and of the vectors that they take."""
    from orchestrator.stages.finetune.costs import trained_parameters

    p, run = stage.parameters, run_of(stage)
    points = len(p.radii) + len(p.compared.cells.lambdas)
    outputs = 1 if p.problem.kernel.outputs == "margin" else variant.survey.n_outputs
    passes = points * p.examples * (1 + outputs * (1 + 4 * _PRODUCTS))
    trained = trained_parameters(variant.sizes, variant.survey, run)
    # The direction, three vectors of the iteration and the image in float64; displaced parameters, their copy, the
    # gradient and a product in the model's precision.
    memory = trained * (5 * 8 + 4 * variant.sizes.row_bytes)
    return forward(variant, passes, at_once=1) + StageCost(
        read_bytes=len(p.compared.cells.lambdas) * trained * variant.sizes.row_bytes,
        written_bytes=8 * 4 * points,
        memory_bytes=memory,
        device_bytes=memory if variant.sweep.spec.compute.device == "cuda" else 0,
    )


def _label(stage: Stage[SmoothnessParameters]) -> str:
    return f"smoothness for {cells_label(stage.parameters.compared.cells)}"


SMOOTHNESS = StageKind(
    name="smoothness",
    parameters=SmoothnessParameters,
    version=1,
    meaning="measures the Hessians of outputs around the pretrained weights and at the trained ones",
    module="orchestrator.stages.smoothness.compute",
    plan_sweep=plan,
    cost=cost,
    label=_label,
    runs_model=True,
    advice="raise the budget, or ask for fewer layers",
    tables=(SMOOTHNESS_TABLE,),
)
