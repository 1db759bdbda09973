"""Where time and disk went."""

import numpy as np

from orchestrator.results.pictures.measured import Measured
from orchestrator.results.pictures.picture import Axis, Form, Missing, Panel, Picture, Scale, Series, names

KIND, TITLE = "costs", "Where time and disk went"


def picture(measured: Measured) -> Picture | Missing:
    """Return the picture of sweeps whose folder is there."""
    if measured.work is None or measured.work.kinds.empty:
        return Missing(
            KIND, TITLE, "Only the tables of the sweep are here, not its folder with journals and artifacts."
        )
    rows = measured.work.kinds.astype({"bytes": "float64"})
    rows = rows[(rows["seconds"] > 0) | (rows["bytes"] > 0)].reset_index(drop=True)
    if rows.empty:
        return Missing(KIND, TITLE, "No stage is finished yet.")
    size, unit = _size(float(rows["bytes"].max()))
    y = names("stage", "kind", rows["stage"].tolist())
    panels = tuple(
        Panel(
            title, _from_zero(label, of, values), y,
            (Series(label, 0, values, np.arange(len(rows), dtype=np.float64), 0, Form.BARS),),
        )
        for title, label, of, values in (
            ("Time of one worker", "time", "s", rows["seconds"].to_numpy()),
            ("Bytes of artifacts on disk", "size", unit, rows["bytes"].to_numpy() / size),
        )
    )  # fmt: skip
    longest, largest = (rows["stage"].iloc[int(rows[name].to_numpy().argmax())] for name in ("seconds", "bytes"))
    total, bytes_total = rows["seconds"].sum(), rows["bytes"].sum() / size
    says = (
        f"All finished stages took {total:,.1f} s of one worker, most of them {longest} "
        f"({100 * rows['seconds'].max() / max(total, 1e-9):.0f} %). The artifacts have {bytes_total:,.3g} {unit}, "
        f"most of them {largest}."
    )
    return Picture(KIND, TITLE, says, panels, rows, across=2, note="Times include stages that were computed again.")


def _size(most: float) -> tuple[float, str]:
    sizes = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
    return next((found for found in sizes if most >= found[0]), (1.0, "B"))


def _from_zero(label: str, unit: str, values: np.ndarray) -> Axis:
    return Axis(label, unit, Scale.LINEAR, 0.0, max(float(values.max()) * 1.05, 1e-9))
