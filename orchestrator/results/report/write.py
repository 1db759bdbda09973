"""Writing the report of a sweep: one HTML file."""

import base64
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup, escape

from orchestrator.errors import OutdatedError, ResultsError
from orchestrator.literal import printable
from orchestrator.results.pictures.kinds import all_pictures
from orchestrator.results.pictures.measured import Measured
from orchestrator.results.pictures.picture import Missing, Picture, Sign
from orchestrator.results.report.summary import summarize
from orchestrator.store.files import explained_output, write_output
from orchestrator.version import VERSION

PAGE = "report.html"
"""Name of a report in a results folder."""

GENERATOR = f"ntksweep {VERSION}"

_SIGNS = {
    Sign.BEST: "best of all",
    Sign.OWN_BEST: "best λ of a layer set",
    Sign.AT_EDGE: "the same, at the edge of the grid",
}


def write_report(measured: Measured, path: Path, *, overwrite: bool = False) -> Path:
    """Write the report of a sweep to `path`; return it.

    Args:
        measured: the tables of the sweep.
        path: the file; an earlier report is replaced.
        overwrite: whether a file that is no report may be replaced too.

    Raises:
        ResultsError: another file lies there.
        StorageError: the file cannot be written.
        OutdatedError: Jinja2 is not installed.
    """
    _refuse_other_file(path, overwrite=overwrite)
    content = page(measured).encode()
    write_output(path, content)
    return path


def _refuse_other_file(path: Path, *, overwrite: bool) -> None:
    if overwrite or not path.is_file():
        return
    with explained_output(path), path.open("rb") as stream:
        head = stream.read(2000)
    if b'name="generator" content="ntksweep ' not in head:
        raise ResultsError(f"{path} exists and is no report of ntksweep; name another file, or give --force")


def page(measured: Measured) -> str:
    """Return the page.

    Raises:
        OutdatedError: Jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise OutdatedError("a report needs Jinja2: pip install 'ntksweep[report]'") from None
    from orchestrator.results.drawing.style import CONTEXT, STYLES
    from orchestrator.results.drawing.svg import shapes

    templates = Environment(
        loader=PackageLoader("orchestrator.results.report", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    templates.filters["coded"] = _coded
    found = list(all_pictures(measured))
    failures = measured.work.failures if measured.work else ()
    text = templates.get_template("page.html").render(
        generator=GENERATOR,
        css=Markup(templates.get_template("page.css").render(styles=STYLES, context=CONTEXT)),
        js=Markup(files("orchestrator.results.report").joinpath("page.js").read_text("utf-8")),
        shapes=shapes(),
        summary=summarize(measured),
        pictures=[_shown(each, measured.spec.name) for each in found if isinstance(each, Picture)],
        missing=[each for each in found if isinstance(each, Missing)],
        failures=[{"message": printable(each.message)} | _texts(each) for each in failures],
        failures_say=_about_failures(measured),
        tables=[(name, str(place)) for name, place in measured.tables.paths.items()],
        provenance=list(_provenance(measured.cells)),
    )
    return printable(text)  # names in it may come from somebody else


def _shown(picture: Picture, sweep: str) -> dict[str, Any]:
    from orchestrator.results.drawing.svg import panel_svg, sign_svg, swatch

    legend = picture.legend if len(picture.legend) > 1 else []
    return {
        "kind": picture.kind,
        "title": picture.title,
        "says": picture.says,
        "note": picture.note,
        "across": picture.across,
        "legend": [{"name": each.name, "swatch": swatch(each)} for each in legend],
        "signs": [(sign_svg(sign), _SIGNS[sign]) for sign in picture.signs if picture.legend],
        "panels": [panel_svg(panel, f"{picture.kind}-{place}") for place, panel in enumerate(picture.panels)],
        "csv": _as_link(picture.rows),
        "n_rows": f"{len(picture.rows):,}",
        "file": f"{sweep}-{picture.kind}.csv",
    }


def _coded(text: str) -> Markup:
    """Return a text with what stands between backticks as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _as_link(rows: pd.DataFrame) -> str:
    """Return rows as the address of a file that is in the page itself."""
    known = rows.dropna(axis="columns", how="all")
    text = known.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    return "data:text/csv;charset=utf-8;base64," + base64.b64encode(text.encode()).decode()


def _texts(failure: Any) -> dict[str, Any]:
    return {name: getattr(failure, name) for name in ("kind", "failure", "count", "which")}


def _about_failures(measured: Measured) -> str:
    status = measured.work.status if measured.work else None
    if status is None:
        return ""
    waiting = status.cells - status.cells_finished
    return (
        f"{sum(kind.failed for kind in status.kinds):,} stages failed in their last attempt, and {waiting:,} of "
        f"{status.cells:,} cells are not there. `ntksweep run` tries again what may succeed; stages that failed alike "
        "stand together."
    )


def _provenance(cells: pd.DataFrame) -> Iterator[str]:
    if cells.empty:
        return
    for name in ("ntksweep", "torch", "transformers"):
        yield f"{name} {', '.join(map(str, cells[name].dropna().unique()))}"
    commits = [str(commit) for commit in cells["git"].dropna().unique()]
    if commits:
        yield f"commit {', '.join(commits)}"
    yield f"computed on {', '.join(map(str, cells['device'].dropna().unique()))}"
    last = cells["finished"].max()
    if not pd.isna(last):
        yield f"last cell finished {last:%Y-%m-%d %H:%M} UTC"
