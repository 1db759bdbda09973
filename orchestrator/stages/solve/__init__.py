"""The kind `solve`: spectra of layer sets, and the arrays from which the cells of any lambda are computed."""

from typing import TYPE_CHECKING

from orchestrator.store.stage import Stage, StageCost, StageKind

if TYPE_CHECKING:
    from orchestrator.sweep.variant import Variant


def cost(stage: Stage, variant: "Variant") -> StageCost:
    """Return the cost of decomposing the kernels of the layer sets, or of multiplying with them."""
    from orchestrator.stages.solve.cost import solve_cost

    return solve_cost(stage, variant)


def is_iterative(stage: Stage) -> bool:
    """Return whether a solve stage multiplies with its kernels instead of decomposing them."""
    # With few parameters the primal matrix is small, and a decomposition gives more numbers.
    iterative = stage.parameters["problem"]["kernel"]["decomposition"] == "iterative"
    return bool(iterative and stage.parameters["method"] == "dual")


def first_layer_sets(stage: Stage) -> str:
    """Return the first layer sets of a stage, and whether there are others, for people."""
    layer_sets = stage.parameters["layer_sets"]
    named = ", ".join("+".join(groups) for groups in layer_sets[:3])
    return named + (" and others" if len(layer_sets) > 3 else "")


def _label(stage: Stage) -> str:
    return f"solve of {first_layer_sets(stage)}"


SOLVE = StageKind(
    name="solve",
    version=7,
    meaning="decomposes the kernels of layer sets",
    module="orchestrator.stages.solve.compute",
    cost=cost,
    label=_label,
    advice="raise the budget, ask for fewer examples in grid.n_train, set kernel.eigenvectors: false, or, for layer "
    "sets with more parameters than kernel rows, kernel.decomposition: iterative",
)
