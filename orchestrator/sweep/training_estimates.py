"""What the training examples alone say of a kernel: estimates of its error, its evidence, and why some are missing."""

from orchestrator.spec.sections import KernelSection

FITTED_HEADS = frozenset({"ridge", "logistic"})
"""Kinds of heads that are fitted to the labels of the training examples."""


ERROR_ESTIMATES = ("gcv", "leave_one_out_loss")
"""Columns of the estimates of the error on new examples."""

EVIDENCE = "log_evidence"
"""Column of the evidence, which compares kernels by the density of the training labels and estimates no error."""

NEEDS_EIGENVECTORS = "it needs kernel.eigenvectors: true"
"""Reason for missing leave-one-out residuals that a run with eigenvectors would add."""


def missing_estimates(head: str, kernel: KernelSection, *, decomposed: bool = True) -> dict[str, str]:
    """Return the reasons why estimates of the error or the evidence are null, by column; only for null columns.

    Args:
        head: the kind of head.
        kernel: the section `kernel` of the spec.
        decomposed: whether the kernel is decomposed.
    """
    if not decomposed:
        return dict.fromkeys(ERROR_ESTIMATES, "kernel.decomposition: iterative finds no eigenvectors") | {
            EVIDENCE: "kernel.decomposition: iterative finds no determinant"
        }
    asymmetric = kernel.kind == "asymmetric_sign"
    missing = {}
    if head == "logistic":
        missing["gcv"] = "a logistic head is not linear in the labels that it is fitted to"
    elif head in FITTED_HEADS and asymmetric:
        missing["gcv"] = "the asymmetric_sign kernel has none under a fitted head"
    if asymmetric:
        missing["leave_one_out_loss"] = "the asymmetric_sign kernel has no leave-one-out residuals"
    elif not kernel.eigenvectors:
        missing["leave_one_out_loss"] = NEEDS_EIGENVECTORS
    if head in FITTED_HEADS:
        missing[EVIDENCE] = "a fitted head has seen the labels"
    elif asymmetric:
        missing[EVIDENCE] = "the asymmetric_sign kernel is no covariance"
    return missing
