"""The mathematics: Jacobian capture, Gram blocks, spectra and ridge paths, on tensors and modules alone.

What a program may rely on is in `__all__`; each name loads its module, and torch, when it is first used.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ntk_dist.errors import NtkError
    from ntk_dist.jacobian.batches import Batch, length_buckets
    from ntk_dist.jacobian.capture import jacobian_rows
    from ntk_dist.jacobian.directional import second_directional_derivative
    from ntk_dist.jacobian.linearization import Linearization
    from ntk_dist.jacobian.tracked import TrackedLinear
    from ntk_dist.kernel.device_gram import device_gram_tile
    from ntk_dist.kernel.features import features
    from ntk_dist.kernel.gram import gram_tile
    from ntk_dist.kernel.tile_operator import TileOperator
    from ntk_dist.solvers.eigen import EigenDecomposition
    from ntk_dist.solvers.krylov_ridge import KrylovRidge, krylov_ridge
    from ntk_dist.solvers.primal import PrimalDecomposition
    from ntk_dist.solvers.ridge import RidgePath, degrees_of_freedom
    from ntk_dist.solvers.schur import SchurDecomposition
    from ntk_dist.solvers.trajectory import Trajectory, gradient_descent, gradient_flow
    from ntk_dist.solvers.tridiagonal import TridiagonalDecomposition
    from ntk_dist.spectrum.bounds import (
        AddedBlockBounds,
        added_block_bounds,
        linearization_bound,
        minimizer_distance_bound,
        ridge_distance_bound,
    )
    from ntk_dist.spectrum.lora_rank import rank_threshold
    from ntk_dist.spectrum.spectral_density import SpectralDensity, spectral_density
    from ntk_dist.spectrum.spectrum import (
        SpectrumSummary,
        condition_number,
        effective_rank,
        label_alignment,
        noise_floor,
        summarize,
    )

__all__ = [
    "AddedBlockBounds",
    "Batch",
    "EigenDecomposition",
    "KrylovRidge",
    "Linearization",
    "NtkError",
    "PrimalDecomposition",
    "RidgePath",
    "SchurDecomposition",
    "SpectralDensity",
    "SpectrumSummary",
    "TileOperator",
    "TrackedLinear",
    "Trajectory",
    "TridiagonalDecomposition",
    "added_block_bounds",
    "condition_number",
    "degrees_of_freedom",
    "device_gram_tile",
    "effective_rank",
    "features",
    "gradient_descent",
    "gradient_flow",
    "gram_tile",
    "jacobian_rows",
    "krylov_ridge",
    "label_alignment",
    "length_buckets",
    "linearization_bound",
    "minimizer_distance_bound",
    "noise_floor",
    "rank_threshold",
    "ridge_distance_bound",
    "second_directional_derivative",
    "spectral_density",
    "summarize",
]

_MODULES = {
    "NtkError": "ntk_dist.errors",
    "Batch": "ntk_dist.jacobian.batches",
    "length_buckets": "ntk_dist.jacobian.batches",
    "jacobian_rows": "ntk_dist.jacobian.capture",
    "second_directional_derivative": "ntk_dist.jacobian.directional",
    "Linearization": "ntk_dist.jacobian.linearization",
    "TrackedLinear": "ntk_dist.jacobian.tracked",
    "device_gram_tile": "ntk_dist.kernel.device_gram",
    "features": "ntk_dist.kernel.features",
    "gram_tile": "ntk_dist.kernel.gram",
    "TileOperator": "ntk_dist.kernel.tile_operator",
    "EigenDecomposition": "ntk_dist.solvers.eigen",
    "KrylovRidge": "ntk_dist.solvers.krylov_ridge",
    "krylov_ridge": "ntk_dist.solvers.krylov_ridge",
    "PrimalDecomposition": "ntk_dist.solvers.primal",
    "RidgePath": "ntk_dist.solvers.ridge",
    "degrees_of_freedom": "ntk_dist.solvers.ridge",
    "SchurDecomposition": "ntk_dist.solvers.schur",
    "Trajectory": "ntk_dist.solvers.trajectory",
    "gradient_descent": "ntk_dist.solvers.trajectory",
    "gradient_flow": "ntk_dist.solvers.trajectory",
    "TridiagonalDecomposition": "ntk_dist.solvers.tridiagonal",
    "AddedBlockBounds": "ntk_dist.spectrum.bounds",
    "added_block_bounds": "ntk_dist.spectrum.bounds",
    "linearization_bound": "ntk_dist.spectrum.bounds",
    "minimizer_distance_bound": "ntk_dist.spectrum.bounds",
    "ridge_distance_bound": "ntk_dist.spectrum.bounds",
    "rank_threshold": "ntk_dist.spectrum.lora_rank",
    "SpectralDensity": "ntk_dist.spectrum.spectral_density",
    "spectral_density": "ntk_dist.spectrum.spectral_density",
    "SpectrumSummary": "ntk_dist.spectrum.spectrum",
    "condition_number": "ntk_dist.spectrum.spectrum",
    "effective_rank": "ntk_dist.spectrum.spectrum",
    "label_alignment": "ntk_dist.spectrum.spectrum",
    "noise_floor": "ntk_dist.spectrum.spectrum",
    "summarize": "ntk_dist.spectrum.spectrum",
}
"""The module of each public name."""

logging.getLogger(__name__).addHandler(logging.NullHandler())  # a program that imports it decides what is shown


if not TYPE_CHECKING:  # or a type checker would believe that any name is here

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(_MODULES[name]), name)
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
