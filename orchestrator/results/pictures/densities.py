"""Where the eigenvalues of kernels lie: how many there are in each power of ten."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from ntk_dist.arrays import FloatArray
from orchestrator.results.pictures.measured import VARIANT, Measured, Variant
from orchestrator.results.pictures.picture import Missing, Panel, Picture, Series, numbers
from orchestrator.results.pictures.spectra import MOST_SETS, UNIT, floor_rule, note, spectra_of

KIND, TITLE = "densities", "Densities of the spectra"

WIDTH = 0.1
"""Standard deviation of the Gaussians that smooth a density, in powers of ten, as in the table `densities`."""

_POINTS = 80


def picture(measured: Measured) -> Picture | Missing:
    """Return the picture of sweeps that decomposed kernels or estimated their densities."""
    frames, panels, first_row = [], [], 0
    for variant in measured.variants:
        frame = _densities(measured, variant)
        if len(frame):
            frames.append(frame)
            panels.append(_panel(measured, variant, frame, first_row))
            first_row += len(frame)
    if not frames:
        return Missing(KIND, TITLE, "No kernel was solved yet.")
    rows = pd.concat(frames, ignore_index=True)
    says = (
        "A peak stands for many eigenvalues of about the same size. λ divides them: modes with eigenvalues above "
        f"{'λ' if measured.lambda_unit == 'absolute' else 'λ · trace(K)/M'} are learned, those below it are held back. "
        "Eigenvalues below the noise floor are drawn at the noise floor."
    )
    return Picture(KIND, TITLE, says, tuple(panels), rows, across=2, note=note(measured, rows))


def _densities(measured: Measured, variant: Variant) -> pd.DataFrame:
    parts = [
        _part(row, *density_of(np.asarray(row["eigenvalues"], dtype=np.float64), float(row["noise_floor"])))
        for _, row in spectra_of(measured, variant).iterrows()
    ]
    parts.extend(_estimated(measured, variant, {str(part["layer_set"].iloc[0]) for part in parts}))
    return variant.put_first(pd.concat(parts, ignore_index=True)) if parts else pd.DataFrame()


def _estimated(measured: Measured, variant: Variant, known: set[str]) -> list[pd.DataFrame]:
    """Return the densities that the sweep estimated without a decomposition."""
    cells = variant.choose(measured.cells)
    shown = [name for name in measured.ranking[:MOST_SETS] if name not in known]
    where = pc.field("layer_set").isin(shown) & (pc.field("seed") == int(cells["seed"].iloc[0]))
    columns = [*VARIANT, "seed", "layer_set", "noise_floor", "grid", "density"]
    found = variant.choose(measured.table("densities", columns, where)).drop_duplicates("layer_set")
    parts = []
    for _, row in found.iterrows():
        grid, density = (np.asarray(row[name], dtype=np.float64) for name in ("grid", "density"))
        if len(density):
            chosen = np.unique(np.linspace(0, len(grid) - 1, _POINTS).round().astype(int))
            parts.append(_part(row, grid[chosen], density[chosen]))
    return parts


def _part(row: "pd.Series[Any]", grid: FloatArray, density: FloatArray) -> pd.DataFrame:
    part = pd.DataFrame({"layer_set": str(row["layer_set"]), "seed": int(row["seed"]), "eigenvalue": grid})
    return part.assign(density=density, noise_floor=float(row["noise_floor"]))


def density_of(eigenvalues: FloatArray, floor: float) -> tuple[FloatArray, FloatArray]:
    """Return places, and the number of eigenvalues for each power of ten there.

    Each eigenvalue counts as a Gaussian of `WIDTH` powers of ten; those below the noise floor are put at it. The
    integral over the decimal logarithm of the places is the number of eigenvalues.

    Args:
        eigenvalues: of one kernel (M,).
        floor: its noise floor.
    """
    positive = eigenvalues[eigenvalues > 0]
    lowest = floor if np.isfinite(floor) and floor > 0 else positive.min(initial=1.0)
    logs = np.log10(np.maximum(eigenvalues, lowest))
    grid = np.linspace(logs.min() - 4 * WIDTH, logs.max() + 4 * WIDTH, _POINTS)
    distances = (grid[:, None] - logs) / WIDTH
    density: FloatArray = np.exp(-(distances**2) / 2).sum(axis=1) / (WIDTH * np.sqrt(2 * np.pi))
    return 10.0**grid, density


def _panel(measured: Measured, variant: Variant, frame: pd.DataFrame, first_row: int) -> Panel:
    series = tuple(
        Series(name, style, rows["eigenvalue"].to_numpy(), rows["density"].to_numpy(), first_row + int(rows.index[0]))
        for name, style, rows in measured.lines_of(frame)
    )
    x = numbers("eigenvalue", UNIT, [frame["eigenvalue"].to_numpy()], log=True)
    y = numbers("density", "eigenvalues in a power of ten", [np.append(frame["density"].to_numpy(), 0.0)])
    rules = tuple(floor_rule(frame["noise_floor"].to_numpy(), upright=True))
    return Panel(variant.title or "Eigenvalues by size", x, y, series, rules)
