"""Reports in a browser: their marks as they lie on the screen, and the numbers that come with them."""

import base64
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

CHROMIUM = shutil.which("chromium")


def needs_chromium() -> None:
    """Skip the test where there is no browser; fail where a change is judged."""
    missing = "apt-get install chromium" if CHROMIUM is None else ""
    if find_spec("playwright") is None or find_spec("axe_playwright_python") is None:
        missing = "pip install 'ntksweep[test]'"
    if missing and os.environ.get("CI"):
        pytest.fail(f"pages of reports are looked at in chromium: {missing}")
    if missing:
        pytest.skip(f"needs chromium and playwright: {missing}")


_READ = """
() => [...document.querySelectorAll("figure")].map((figure) => ({
  kind: figure.closest("section").id,
  csv: document.getElementById(figure.dataset.csv).href,
  panels: [...figure.querySelectorAll("svg.panel")].map((panel) => {
    const screen = panel.getScreenCTM();
    const marks = [];
    const add = (element, x, y, row) => {
      const point = new DOMPoint(x, y).matrixTransform(screen);
      const box = element.getBoundingClientRect();
      const series = element.closest(".series")?.dataset.series ?? "";
      marks.push({x: point.x, y: point.y, row, series, seen: box.width + box.height > 0});
    };
    for (const element of panel.querySelectorAll("[data-row]")) {
      const of = (name) => Number(element.getAttribute(name));
      const row = Number(element.dataset.row);
      if (element.tagName === "polyline") {
        [...element.points].forEach((point, place) => add(element, point.x, point.y, row + place));
      } else if (element.tagName === "rect") {
        const part = element.classList.contains("bar") ? 1 : 2;
        add(element, of("x") + of("width") / part, of("y") + of("height") / 2, row);
      } else {
        add(element, of("x"), of("y"), row);
      }
    }
    return {
      x: panel.dataset.x, y: panel.dataset.y, marks, scale: screen.a, left: screen.e, top: screen.f,
      title: panel.querySelector(".panel-title").textContent, label: panel.getAttribute("aria-label"),
    };
  }),
}))
"""


@dataclass(frozen=True)
class ShownPanel:
    """A panel as it is on the screen: `marks` has x and y in pixels, row, series, and whether it has any extent."""

    title: str
    label: str
    marks: pd.DataFrame
    x: str
    y: str
    scale: float
    left: float
    top: float

    def pixels(self, values: Any, *, across: bool) -> "np.ndarray[Any, np.dtype[np.float64]]":
        """Return where values should lie on the screen, by the axis alone."""
        scale, low, high, start, end = (self.x if across else self.y).split(",")
        ends = np.array([float(low), float(high)])
        numbers = np.asarray(values, dtype=np.float64)
        if scale == "log":
            ends, numbers = np.log10(ends), np.log10(numbers)
        share = (numbers - ends[0]) / (ends[1] - ends[0])
        places = float(start) + share * (float(end) - float(start))
        return places * self.scale + (self.left if across else self.top)


@dataclass(frozen=True)
class ShownPicture:
    """A picture as it is on the screen, and its rows as they can be downloaded."""

    kind: str
    rows: pd.DataFrame
    panels: list[ShownPanel]


@dataclass
class Page:
    """A page in a browser.

    Attributes:
        page: playwright's page.
        console: what it wrote to the console, warnings and errors.
        requests: what it asked for beside itself.
    """

    page: Any
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def pictures(self) -> dict[str, ShownPicture]:
        """Return the pictures by their kinds."""
        return {each["kind"]: _picture(each) for each in self.page.evaluate(_READ)}


def _picture(found: dict[str, Any]) -> ShownPicture:
    text = base64.b64decode(found["csv"].partition("base64,")[2]).decode()
    columns = ["x", "y", "row", "series", "seen"]
    panels = [
        ShownPanel(**(each | {"marks": pd.DataFrame(each["marks"], columns=columns)})) for each in found["panels"]
    ]
    return ShownPicture(found["kind"], pd.read_csv(io.StringIO(text)), panels)


@contextmanager
def browser() -> Iterator[Any]:
    """Start a browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def opened(chromium: Any, path: Path, *, width: int = 1400, dark: bool = False) -> Page:
    """Open a file in a browser's window of so many pixels."""
    settings = {"viewport": {"width": width, "height": 900}, "color_scheme": "dark" if dark else "light"}
    page = Page(chromium.new_page(**settings))
    page.page.on("console", lambda message: page.console.append(message.text))
    page.page.on("pageerror", lambda error: page.console.append(str(error)))
    page.page.on("request", lambda request: page.requests.append(request.url))
    page.page.goto(path.absolute().as_uri())
    return page
