"""How many lambdas training is followed for at once, which the plan knows without what computes it."""

from orchestrator.stages.context.blocks import BLOCK_BYTES
from orchestrator.stages.solve import FlowParameters

TRAINED_BY = ("flow", "descent")
"""Ways of training, in the order of the array."""


def lambdas_at_once(flow: FlowParameters, size: int, eval_size: int, targets: int) -> int:
    """Return for how many lambdas training is followed together: the arrays of each path take some memory."""
    return max(1, BLOCK_BYTES // lambda_bytes(flow, size, eval_size, targets))


def lambda_bytes(flow: FlowParameters, size: int, eval_size: int, targets: int) -> int:
    """Return the bytes of what a path of one lambda reaches: residuals, coefficients, outputs."""
    return 8 * len(TRAINED_BY) * len(flow.times) * targets * (2 * size + eval_size)
