"""What the solve of a layer set costs with a kernel reduced to a band, against a tridiagonal matrix.

    python -m benchmarks.band [--sizes 500 1000 2000 4000] [--widths 48] [--rounds 3] [--lambdas 20] [--threads 1]

For each size M, both reductions of one kernel in turn, in this process: sum of two blocks, reduction, eigenvalues and
their summary, what is kept, and the path of all lambdas with predictions for 872 examples. Prints for each part and for
the whole the processor time of the band / that of the tridiagonal matrix, as median (smallest to largest), with the
seconds of the latter, and how far the numbers of both differ. Aim for the whole at M = 4,000: at most 0.45.
`ntk_dist.solvers.band_choice` has its constants from here.
"""

import argparse
import itertools
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np
from threadpoolctl import threadpool_limits

from ntk_dist.arrays import FloatArray
from ntk_dist.solvers.band import BandDecomposition
from ntk_dist.solvers.band_choice import BAND_WIDTH
from ntk_dist.solvers.ridge import RidgePath
from ntk_dist.solvers.tridiagonal import TridiagonalDecomposition
from ntk_dist.spectrum.spectrum import label_alignment, summarize

N_EVAL = 872
EPS = float(np.finfo(np.float64).eps)
PARTS = ("sum", "reduction", "eigenvalues", "keeping", "lambdas", "whole")

Reduce = Callable[[FloatArray], BandDecomposition | TridiagonalDecomposition]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[500, 1000, 2000, 4000], help="rows M of the kernel")
    parser.add_argument("--widths", type=int, nargs="+", default=[BAND_WIDTH], help="diagonals below the main one")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each (default: %(default)s)")
    parser.add_argument("--lambdas", type=int, default=20, help="lambdas (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of BLAS (default: %(default)s)")
    arguments = parser.parse_args()
    with threadpool_limits(arguments.threads):
        for M in arguments.sizes:
            compare(M, arguments.widths, arguments.rounds, np.logspace(-6, 0, arguments.lambdas))


def compare(M: int, widths: list[int], rounds: int, relative_lambdas: FloatArray) -> None:
    """Print the ratios of one size, for each width of the band."""
    blocks, rows, r = problem(M)
    ways: list[Reduce] = [TridiagonalDecomposition, *(partial(BandDecomposition, width=width) for width in widths)]
    times: list[list[list[float]]] = [[] for _ in ways]
    paths: list[RidgePath] = []
    for _ in range(rounds):
        solved = [solve(way, blocks, rows, r, relative_lambdas) for way in ways]
        paths = [path for path, _ in solved]
        for found, (_, seconds) in zip(times, solved, strict=True):
            found.append([*seconds, sum(seconds)])
    for width, found, path in zip(widths, times[1:], paths[1:], strict=True):
        print(f"M = {M:,}, band {width} / tridiagonal, {rounds} rounds")
        for part, band, tridiagonal in zip(PARTS, zip(*found, strict=True), zip(*times[0], strict=True), strict=True):
            ratios = [ours / theirs for ours, theirs in zip(band, tridiagonal, strict=True)]
            seconds = f"{median(band):.3f} s / {median(tridiagonal):.3f} s"
            print(f"  {part:12} {median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})  {seconds}")
        left = np.abs(path.train_residuals - paths[0].train_residuals).max() / np.abs(r).max()
        gcv = np.abs(path.gcv / paths[0].gcv - 1).max()
        print(f"  largest difference of a residual / the largest before: {left:.1e}; of gcv, relative: {gcv:.1e}")


def problem(M: int) -> tuple[list[FloatArray], FloatArray, FloatArray]:
    """Return two blocks (M, M), rows for evaluation and a residual, of random features with a decaying spectrum."""
    draw = np.random.default_rng(M)
    scales = np.arange(1.0, M + 1) ** -0.75
    blocks, rows = [], np.zeros((N_EVAL, M))
    for _ in range(2):
        J = draw.standard_normal((M + N_EVAL, M)) * scales
        blocks.append(np.asfortranarray(J[:M] @ J[:M].T))
        rows += J[M:] @ J[:M].T
    return blocks, rows, draw.standard_normal((M, 1))


def solve(
    reduce: Reduce, blocks: list[FloatArray], rows: FloatArray, r: FloatArray, relative_lambdas: FloatArray
) -> tuple[RidgePath, list[float]]:
    """Return the path of a layer set, and the processor seconds of each part but the whole."""
    marks = [time.process_time()]
    K = np.asfortranarray(blocks[0] + blocks[1])
    marks.append(time.process_time())
    decomposition = reduce(K)
    marks.append(time.process_time())
    M, trace = decomposition.size, decomposition.trace
    summarize(
        decomposition.eigenvalues,
        size=M,
        trace=trace,
        sigma=1e-3,
        relative_sigma=1e-6,
        jacobian_eps=EPS,
        gram_eps=EPS,
    )
    marks.append(time.process_time())
    label_alignment(decomposition, r)
    kept = decomposition.keep(r, iter([rows]))
    marks.append(time.process_time())
    path = kept.ridge_path(r, relative_lambdas * trace / M)
    kept.eval_fit(path)
    marks.append(time.process_time())
    return path, [after - before for before, after in itertools.pairwise(marks)]


if __name__ == "__main__":
    main()
