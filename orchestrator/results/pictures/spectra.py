"""Eigenvalues of the kernels of layer sets, and where their noise floor lies."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from ntk_dist.arrays import FloatArray
from orchestrator.results.pictures.measured import VARIANT, Measured, Variant
from orchestrator.results.pictures.picture import Missing, Panel, Picture, Rule, Series, numbers

KIND, TITLE = "spectra", "Spectra of the kernels"

MOST_SETS = 40
"""Layer sets that are drawn; more lines hide each other."""

_POINTS = 60
"""Eigenvalues of a layer set that are drawn, evenly on a logarithmic scale."""

UNIT = "unit of the kernel"


def picture(measured: Measured) -> Picture | Missing:
    """Return the picture of sweeps that decomposed kernels."""
    frames, panels, first_row = [], [], 0
    for variant in measured.variants:
        frame = _thinned(variant, spectra_of(measured, variant))
        if len(frame):
            frames.append(frame)
            panels.append(_panel(measured, variant, frame, first_row))
            first_row += len(frame)
    if not frames:
        why = "No kernel was decomposed yet, or kernel.decomposition is iterative: then there are densities only."
        return Missing(KIND, TITLE, why)
    rows = pd.concat(frames, ignore_index=True)
    says = (
        "The steeper a line falls, the fewer directions carry the kernel, and the more λ decides what is learned. "
        "Eigenvalues in the gray strip cannot be told from 0: a condition number that rests on them is noise."
    )
    return Picture(KIND, TITLE, says, tuple(panels), rows, across=2, note=note(measured, rows))


def note(measured: Measured, rows: pd.DataFrame) -> str:
    """Return a note about which of the spectra are drawn."""
    drawn, of = rows["layer_set"].nunique(), len(measured.layer_sets)
    parts = [
        f"Kernels of seed {int(rows['seed'].iloc[0])}; those of other seeds are in the table."
        if measured.n_seeds > 1
        else "",
        f"Drawn are the {drawn} best of {of} layer sets." if drawn < of else "",
        measured.about_lines,
        measured.left_out,
    ]  # fmt: skip
    return " ".join(filter(None, parts))


def spectra_of(measured: Measured, variant: Variant) -> pd.DataFrame:
    """Return `layer_set`, `seed`, `eigenvalues` and `noise_floor` of a variant's first seed, `MOST_SETS` at most."""
    cells = variant.choose(measured.cells)
    columns = [*VARIANT, "seed", "layer_set", "eigenvalues"]
    if cells.empty:
        return pd.DataFrame(columns=[*columns, "noise_floor"])
    shown = [
        name
        for name in measured.best_sets(_POINTS * len(measured.variants))
        if name in set(measured.ranking[:MOST_SETS])
    ]
    where = pc.field("layer_set").isin(shown) & (pc.field("seed") == int(cells["seed"].iloc[0]))
    found = variant.choose(measured.table("spectra", columns, where))
    found = found[found["eigenvalues"].notna()].drop_duplicates("layer_set")
    of_seed = cells[cells["seed"] == cells["seed"].iloc[0]]
    floors = of_seed.groupby("layer_set", sort=False)["noise_floor"].first()
    found = found.assign(noise_floor=found["layer_set"].map(floors))
    return found.sort_values("layer_set", key=lambda names: names.map(measured.layer_sets.index), kind="stable")


def _thinned(variant: Variant, spectra: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each eigenvalue that is drawn; those that are not positive have no place and are left out."""
    parts = []
    for row in spectra.itertuples(index=False):
        values = np.asarray(row.eigenvalues, dtype=np.float64)
        chosen = np.unique(np.geomspace(1, len(values), _POINTS).round().astype(int)) - 1
        chosen = chosen[values[chosen] > 0]
        parts.append(
            pd.DataFrame({
                "layer_set": row.layer_set, "seed": row.seed, "place": chosen + 1, "eigenvalue": values[chosen],
                "noise_floor": row.noise_floor,
            })
        )  # fmt: skip
    return variant.put_first(pd.concat(parts, ignore_index=True)) if parts else pd.DataFrame()


def _panel(measured: Measured, variant: Variant, frame: pd.DataFrame, first_row: int) -> Panel:
    series = tuple(
        Series(
            name,
            style,
            rows["place"].to_numpy(dtype=np.float64),
            rows["eigenvalue"].to_numpy(),
            first_row + int(rows.index[0]),
        )
        for name, style, rows in measured.lines_of(frame)
    )
    values = frame["eigenvalue"].to_numpy()
    rules = tuple(floor_rule(frame["noise_floor"].to_numpy()))
    lowest = np.array([rule.value for rule in rules])
    # far below the floor there is nothing to see
    least = max(values.min(), lowest.min() / 100) if len(lowest) and lowest.min() > 0 else values.min()
    y = numbers("eigenvalue", UNIT, [values[values >= least], lowest], log=True)
    x = numbers("place in the spectrum", "1 is the largest", [frame["place"].to_numpy(dtype=np.float64)], log=True)
    return Panel(variant.title or "Eigenvalues, largest first", x, y, series, rules)


def floor_rule(floors: FloatArray, *, upright: bool = False) -> Iterator[Rule]:
    """Yield the strip between the lowest and the highest noise floor of kernels."""
    known = floors[np.isfinite(floors) & (floors > 0)]
    if len(known):
        yield Rule(float(known.min()), "noise floor", upright=upright, to=float(known.max()))
