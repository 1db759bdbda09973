"""The kind `solve`: spectra of layer sets, and the arrays from which the cells of any lambda are computed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from orchestrator.spec.grid_section import LambdaScale
from orchestrator.spec.listed import TimeScale
from orchestrator.stages.base.parameters import ProblemParameters
from orchestrator.stages.base.scope import SeedScope
from orchestrator.stages.solve.columns import DENSITIES, PREDICTIONS, RIDGE_COLUMNS, SPECTRA, SPECTRUM_COLUMNS
from orchestrator.stages.solve.further_columns import CONTRIBUTIONS, FLOW
from orchestrator.store.stage import Stage, StageCost, StageKind

if TYPE_CHECKING:
    from orchestrator.sweep.variant import Variant


Method = Literal["dual", "primal"]


@dataclass(frozen=True)
class IterativeParameters:
    """Parameters of products with a kernel, which serve the lambdas from the lowest that they were made for.

    Attributes:
        lowest_lambda: that lambda.
        lambda_scale: its unit.
        probe_seed: seed of the random vectors of the spectral density.
    """

    lowest_lambda: float
    lambda_scale: LambdaScale
    probe_seed: int


@dataclass(frozen=True)
class FlowParameters:
    """Parameters of the trajectories of a stage: see `kernel.flow_times`.

    Attributes:
        times: at which training is looked at.
        time_scale: their unit.
        lambdas: those of the grid.
        lambda_scale: their unit.
    """

    times: tuple[float, ...]
    time_scale: TimeScale
    lambdas: tuple[float, ...]
    lambda_scale: LambdaScale


@dataclass(frozen=True)
class SolveParameters:
    """Parameters of a stage `solve`.

    Attributes:
        problem: the regression problem.
        method: "dual" takes kernels, "primal" the smaller products J'J of layer sets with few parameters.
        layer_sets: groups of each layer set.
        iterative: for kernels that are multiplied with and not decomposed; None where they are decomposed.
        contributions: whether to keep what each block contributes.
        flow: for trajectories, which alone make a decomposition depend on lambdas; None without.
    """

    problem: ProblemParameters
    method: Method
    layer_sets: tuple[tuple[str, ...], ...]
    iterative: IterativeParameters | None
    contributions: bool = False
    flow: FlowParameters | None = None


def cost(stage: Stage[SolveParameters], variant: "Variant") -> StageCost:
    """Return the cost of decomposing the kernels of the layer sets, or of multiplying with them."""
    from orchestrator.stages.solve.costs import solve_cost

    return solve_cost(stage, variant)


def plan(scope: SeedScope) -> None:
    """Add the stages that fill the cells of a seed."""
    from orchestrator.stages.solve.planning import plan_solves

    plan_solves(scope)


def _reads_rows(variant: "Variant") -> str:
    spec, method = variant.sweep.spec, variant.sizes.method
    primal = any(method(each, n) == "primal" for each in variant.layer_sets for n in spec.grid.n_train)
    return "layer sets with fewer parameters than the kernel has rows are solved from them" if primal else ""


def first_layer_sets(layer_sets: Sequence[Sequence[str]]) -> str:
    """Return the first of some layer sets, and whether there are others, for people."""
    named = ", ".join("+".join(groups) for groups in layer_sets[:3])
    return named + (" and others" if len(layer_sets) > 3 else "")


def _label(stage: Stage[SolveParameters]) -> str:
    return f"solve of {first_layer_sets(stage.parameters.layer_sets)}"


SOLVE = StageKind(
    name="solve",
    parameters=SolveParameters,
    version=13,
    meaning="decomposes the kernels of layer sets",
    module="orchestrator.stages.solve.compute",
    plan=plan,
    cost=cost,
    label=_label,
    bundled=True,
    reads_rows=_reads_rows,
    advice="raise the budget, ask for fewer examples in grid.n_train, set kernel.eigenvectors: false, or, for layer "
    "sets with more parameters than kernel rows, kernel.decomposition: iterative",
    tables=(SPECTRA, PREDICTIONS, DENSITIES, CONTRIBUTIONS, FLOW),
    cell_columns=(*SPECTRUM_COLUMNS, *RIDGE_COLUMNS),
)
