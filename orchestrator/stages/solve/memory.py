"""Memory of a decomposition, and size of its stored part on disk."""

from dataclasses import dataclass

from ntk_dist.solvers.band_choice import stored_diagonals
from orchestrator.spec.sections import KernelSection


@dataclass(frozen=True)
class SolveSize:
    """The size of one layer set's problem.

    Attributes:
        kernel: the section `kernel` of the spec.
        decomposed: rows of the matrix that is decomposed: M, or the parameters p.
        primal: whether it is the parameters p.
        M, M_eval: rows of the kernel for training and for evaluation.
        targets: targets of a row.
        rows_per_example: rows of the kernel that an example gives.
    """

    kernel: KernelSection
    decomposed: int
    primal: bool
    M: int
    M_eval: int
    targets: int
    rows_per_example: int

    def memory_bytes(self, rows: int) -> int:
        """Return the memory for decomposing and keeping, given the bytes of the rows for evaluation."""
        # Eigenvectors replace the matrix, with twice its size as LAPACK's workspace; Schur vectors stand beside it.
        copies = 3 if self.kernel.eigenvectors or self.kernel.kind == "asymmetric_sign" else 1
        # The solutions that span those of all lambdas are in memory together with the arrays made from them.
        path = 3 * 8 * self.decomposed * self._spanning + 2 * self.kept_bytes
        return copies * 8 * self.decomposed**2 + rows + path

    @property
    def kept_bytes(self) -> int:
        """Most bytes of the stored part of a decomposition."""
        q, vectors = self.decomposed, self.vectors
        numbers = vectors * (q + self.M + self.M_eval) + (2 + stored_diagonals(q) + self.targets) * q
        if self.kernel.kind == "asymmetric_sign":
            numbers += q * q
        elif self.kernel.eigenvectors:
            weights = min(q, self._spanning // self.targets)
            numbers += weights * (q + self.M * self.rows_per_example)
            numbers += weights * (q + self.M_eval) + self.M_eval  # of predictive variances
        return 8 * numbers

    @property
    def vectors(self) -> int:
        """Most vectors that span the solutions of all lambdas; those of an unsymmetric kernel fill the space."""
        return self.decomposed if self.kernel.kind == "asymmetric_sign" else min(self.decomposed, self._spanning)

    @property
    def _spanning(self) -> int:
        from ntk_dist.solvers.lambda_nodes import MOST_NODES

        return (MOST_NODES + 1) * self.targets
