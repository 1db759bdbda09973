"""What adding layers to layer sets costs: FLOPs, bytes on disk, memory of a stage `additions`."""

from orchestrator.plan import Plan
from orchestrator.stage import Stage
from orchestrator.tables.schema import ADDITIONS


def additions_flops(plan: Plan, stage: Stage) -> float:
    """Return the floating-point operations of a stage, as if each first-order estimate needed one eigenvector.

    Where eigenvalues of a layer set's kernel cannot be told from its smallest, as for sets with few parameters, their
    eigenvectors count too: up to 6 M^3 more for each block.
    """
    p = stage.parameters
    M: int = p["n_train"] * p["rows_per_example"]
    blocks = {frozenset(groups) for added in p["added"] for groups in added}
    pairs = [(of, groups) for of, added in zip(p["layer_sets"], p["added"], strict=True) for groups in added]
    sums = {frozenset((*of, *groups)) for of, groups in pairs} - {frozenset(of) for of in p["layer_sets"]}
    # Eigenvectors take about 9 M^3, eigenvalues alone 4/3 M^3, as in the estimate of a stage `solve`.
    decompositions = 9.0 * len(p["layer_sets"]) + 4 / 3 * (len(blocks) + len(sums))
    return float(decompositions * M**3 + 4.0 * len(pairs) * M**2)


def additions_disk(plan: Plan, stage: Stage) -> int:
    """Return the bytes that a stage leaves: a row of numbers for each block added."""
    return 8 * len(ADDITIONS) * sum(len(added) for added in stage.parameters["added"])


def additions_memory(plan: Plan, stage: Stage) -> int:
    """Return the bytes that a stage takes: the kernel, its eigenvectors, a block and what is between them."""
    # Five matrices as large as the kernel, also while eigenvectors are computed.
    M: int = stage.parameters["n_train"] * stage.parameters["rows_per_example"]
    return 5 * 8 * M * M
