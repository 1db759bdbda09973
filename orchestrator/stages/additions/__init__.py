"""The kind `additions`: the effect on a layer set's spectrum of adding layers that it lacks."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune.settings import ModelDType, TaskKind
from ntk_dist.kernel.features import OutputMode
from orchestrator.spec.compute_section import GramDType, RowDType
from orchestrator.spec.grid_section import LambdaScale
from orchestrator.stages.additions.columns import ADDITIONS_TABLE
from orchestrator.stages.base.scope import SeedScope
from orchestrator.stages.solve import first_layer_sets
from orchestrator.store.stage import Stage, StageCost, StageKind

if TYPE_CHECKING:
    from orchestrator.sweep.variant import Variant

NUMBERS = 30
"""Numbers of a row of the table, at most, but for those of each lambda."""

NUMBERS_OF_A_LAMBDA = 4
"""Numbers of a row for each lambda."""


@dataclass(frozen=True)
class AdditionsParameters:
    """Parameters of a stage `additions`.

    Attributes:
        n_train: training examples.
        rows_per_example: rows of the kernel that an example gives.
        sigma: added to the spectrum for condition numbers.
        dtype: precision of the model.
        row_dtype: precision of the rows.
        gram_dtype: precision of products.
        threads: processors that compute it.
        tf32: whether products used TF32.
        layer_sets: groups of each layer set.
        added: groups of each block that is added to it, for each layer set.
        task_kind: classification or regression.
        n_outputs: outputs C of the model.
        outputs: those that the kernel keeps.
        lambdas: as the spec gives them.
        lambda_scale: their unit.
    """

    n_train: int
    rows_per_example: int
    sigma: float
    dtype: ModelDType
    row_dtype: RowDType
    gram_dtype: GramDType
    threads: int
    tf32: bool
    layer_sets: tuple[tuple[str, ...], ...]
    added: tuple[tuple[tuple[str, ...], ...], ...]
    task_kind: TaskKind
    n_outputs: int
    outputs: OutputMode
    lambdas: tuple[float, ...]
    lambda_scale: LambdaScale


def cost(stage: Stage[AdditionsParameters], variant: "Variant") -> StageCost:
    """Return the cost of the stage, as if each first-order estimate needed one eigenvector.

    If eigenvalues of a layer set's kernel are indistinguishable from its smallest one, as for sets with few parameters,
    their eigenvectors count too: up to 6 M^3 more for each block.
    """
    p = stage.parameters
    M = p.n_train * p.rows_per_example
    blocks = {frozenset(groups) for added in p.added for groups in added}
    pairs = [(of, groups) for of, added in zip(p.layer_sets, p.added, strict=True) for groups in added]
    sums = {frozenset((*of, *groups)) for of, groups in pairs} - {frozenset(of) for of in p.layer_sets}
    # Eigenvectors take about 9 M^3, eigenvalues alone 4/3 M^3, as in the estimate of a stage `solve`.
    decompositions = 9.0 * len(p.layer_sets) + 4 / 3 * (len(blocks) + len(sums))
    return StageCost(
        memory_flops=float(decompositions * M**3 + 4.0 * len(pairs) * M**2),
        read_bytes=8 * M * M * len(p.layer_sets),
        written_bytes=8 * (NUMBERS + NUMBERS_OF_A_LAMBDA * len(p.lambdas)) * len(pairs),
        # Five matrices as large as the kernel, also while eigenvectors are computed.
        memory_bytes=5 * 8 * M * M,
    )


def plan(scope: SeedScope) -> None:
    """Add the stages that add layers to layer sets, where the spec asks for it."""
    from orchestrator.stages.additions.planning import plan_additions

    if scope.variant.sweep.spec.kernel.additions:
        plan_additions(scope)


def _label(stage: Stage[AdditionsParameters]) -> str:
    return f"additions to {first_layer_sets(stage.parameters.layer_sets)}"


ADDITIONS = StageKind(
    name="additions",
    parameters=AdditionsParameters,
    version=5,
    meaning="adds to each layer set every layer of the grid that it lacks",
    module="orchestrator.stages.additions.compute",
    plan=plan,
    cost=cost,
    label=_label,
    advice="raise the budget, ask for fewer examples in grid.n_train, or set kernel.additions: false",
    tables=(ADDITIONS_TABLE,),
)
