"""Cost of a path of lambdas, against a single lambda, and against a Cholesky solve for every cell.

    python benchmarks/lambda_path.py --threads 1

Prints ratios of interleaved runs in this process, as median (smallest to largest):

(a) one layer set with 100 lambdas / the same with 1 lambda, spectrum included, target at most 1.1, without and
    with the predictions on the evaluation examples;
(b) a loop that sums the stored blocks and solves by Cholesky for each of 63 layer sets x 100 lambdas / one
    decomposition for each layer set, spectra included; target at least 10, aim 20.

The blocks are synthetic: Gram matrices of random features whose scales fall as a power of their rank, which
gives the decaying spectra of real ones. The kernel of the evaluation examples is summed beforehand for both.
The loop of (b) takes minutes, so it is timed on some cells of each layer set, between the decompositions, and
multiplied up.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import scipy.linalg
from threadpoolctl import threadpool_limits

from ntk_dist.arrays import FloatArray
from ntk_dist.solvers.ridge import RidgePath
from ntk_dist.solvers.tridiagonal import TridiagonalDecomposition
from ntk_dist.spectrum.spectrum import SpectrumSummary, label_alignment, summarize

N_LAYERS = 6
EPS = float(np.finfo(np.float64).eps)


def synthetic_blocks(M: int, n_eval: int, rng: np.random.Generator) -> tuple[list[FloatArray], list[FloatArray]]:
    """One train block (M, M), in Fortran order, and one eval block (n_eval, M) for each layer."""
    train, evaluation = [], []
    scales = np.arange(1.0, 2 * M + 1) ** -0.75
    for _ in range(N_LAYERS):
        J = rng.standard_normal((M + n_eval, 2 * M)) * scales
        K = J[:M] @ J[:M].T
        train.append(np.asfortranarray((K + K.T) / 2))
        evaluation.append(J[M:] @ J[:M].T)
    return train, evaluation


def summed(blocks: Sequence[FloatArray]) -> FloatArray:
    """Sum of blocks of one shape, in the order given."""
    total = blocks[0].copy(order="F")
    for block in blocks[1:]:
        total += block
    return total


def layer_set(
    blocks: Sequence[FloatArray], K_eval: FloatArray | None, r: FloatArray, relative_lambdas: FloatArray
) -> tuple[SpectrumSummary, RidgePath, float]:
    """Spectrum and path of one layer set, and how many seconds they took, predictions included if asked for."""
    start = time.perf_counter()
    decomposition = TridiagonalDecomposition(summed(blocks))
    M, trace = decomposition.size, decomposition.trace
    summary = summarize(
        decomposition.eigenvalues,
        size=M,
        trace=trace,
        sigma=1e-3,
        relative_sigma=1e-6,
        jacobian_eps=EPS,
        gram_eps=EPS,
    )
    label_alignment(decomposition, r)
    path = decomposition.ridge_path(r, relative_lambdas * trace / M)
    if K_eval is not None:
        path.eval_fit(K_eval)
    return summary, path, time.perf_counter() - start


def cell_by_cholesky(
    blocks: Sequence[FloatArray], K_eval: FloatArray, r: FloatArray, relative_lambda: float
) -> tuple[FloatArray, float]:
    """Train residual of one cell as a plain loop computes it, and how long it took with the prediction."""
    start = time.perf_counter()
    K = summed(blocks)
    value = relative_lambda * np.trace(K) / len(K)
    K[np.diag_indices_from(K)] += value
    factor = scipy.linalg.cho_factor(K, lower=True, overwrite_a=True, check_finite=False)
    alpha = scipy.linalg.cho_solve(factor, r, check_finite=False)
    K_eval @ alpha
    return value * alpha, time.perf_counter() - start


def spread(values: Sequence[float], unit: Callable[[float], str] = "{:.3f}".format) -> str:
    """Median (smallest to largest)."""
    return f"{unit(statistics.median(values))} ({unit(min(values))} to {unit(max(values))})"


def many_lambdas_against_one(M: int, n_eval: int, repeats: int, lambdas: FloatArray) -> None:
    rng = np.random.default_rng(0)
    train, evaluation = synthetic_blocks(M, n_eval, rng)
    r = rng.standard_normal((M, 1))
    for predictions, K_eval in (("without", None), ("with", summed(evaluation))):
        ratios, single = [], []
        for _ in range(repeats + 1):
            one = layer_set(train, K_eval, r, lambdas[50:51])[-1]
            many = layer_set(train, K_eval, r, lambdas)[-1]
            single.append(one)
            ratios.append(many / one)
        # The first pair warms up.
        print(
            f"(a) M = {M}, {predictions} predictions: {len(lambdas)} lambdas / 1 lambda = {spread(ratios[1:])}; "
            f"1 lambda takes {spread(single[1:], '{:.3f} s'.format)}"
        )


def sweep_against_loop(M: int, n_eval: int, repeats: int, lambdas: FloatArray, sampled: int) -> None:
    rng = np.random.default_rng(1)
    train, evaluation = synthetic_blocks(M, n_eval, rng)
    r = rng.standard_normal((M, 1))
    sets = [s for size in range(1, N_LAYERS + 1) for s in itertools.combinations(range(N_LAYERS), size)]
    evals = {s: summed([evaluation[g] for g in s]) for s in sets}
    ratios, ours, theirs, worst = [], [], [], 0.0
    for _ in range(repeats):
        paths = cells = 0.0
        for s in sets:
            blocks = [train[g] for g in s]
            _, path, seconds = layer_set(blocks, evals[s], r, lambdas)
            paths += seconds
            for i in rng.choice(len(lambdas), sampled, replace=False):
                residual, seconds = cell_by_cholesky(blocks, evals[s], r, float(lambdas[i]))
                cells += seconds * len(lambdas) / sampled
                worst = max(worst, float(np.abs(path.train_residuals[i] - residual).max()))
        ratios.append(cells / paths)
        ours.append(paths)
        theirs.append(cells)
    print(f"(b) M = {M}: {len(sets)} layer sets x {len(lambdas)} lambdas: loop / path = {spread(ratios)}")
    print(
        f"    paths {spread(ours, '{:.1f} s'.format)}; loop {spread(theirs, '{:.0f} s'.format)}, "
        f"from {sampled} of {len(lambdas)} cells a layer set; largest difference of a residual {worst:.1e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="threads of BLAS (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each (default: %(default)s)")
    parser.add_argument("--sampled", type=int, default=4, help="loop cells timed a layer set (default: %(default)s)")
    arguments = parser.parse_args()
    lambdas = np.logspace(-6, 0, 100)
    with threadpool_limits(arguments.threads):
        print(f"{arguments.threads} BLAS thread(s), {arguments.repeats} repeats: median (smallest to largest)")
        for M in (1000, 3000):
            many_lambdas_against_one(M, 872, arguments.repeats, lambdas)
        sweep_against_loop(1000, 872, arguments.repeats, lambdas, arguments.sampled)


if __name__ == "__main__":
    main()
