"""The pictures of a sweep as methods, each drawn as `ntksweep plot` draws it."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import ResultsError
from orchestrator.results.drawing.paper import Size, draw, settings, write_figure
from orchestrator.results.loading import Results
from orchestrator.results.pictures.kinds import MAKERS, picture_named
from orchestrator.results.pictures.measured import Measured
from orchestrator.results.pictures.picture import Picture
from orchestrator.results.pictures.tables import TablesOfResults
from orchestrator.results.pictures.work import work_of
from orchestrator.spec.places import given_path

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


class Drawing:
    """A picture of a sweep: notebooks show it, `save` writes it, `figure` is matplotlib's.

    Attributes:
        picture: what it shows: its title, what to see in it, its panels.
        size: for which width it is drawn: `column` or `page` of a paper with two columns, or `slide`.
    """

    def __init__(self, picture: Picture, size: Size) -> None:
        self.picture = picture
        self.size = size

    @cached_property
    def figure(self) -> "Figure":
        """The figure of matplotlib."""
        return draw(self.picture, self.size)

    @property
    def rows(self) -> "pd.DataFrame":
        """The numbers that are drawn, a row a mark."""
        return self.picture.rows

    def save(self, path: str | Path) -> Path:
        """Write the picture to `path`, in the format of its ending (.pdf, .svg, .eps, .png); return the path.

        Raises:
            ResultsError: the ending is another one.
            StorageError: the file cannot be written.
        """
        return write_figure(self.picture, given_path(path), self.size)

    def _repr_png_(self) -> bytes:
        from io import BytesIO

        content = BytesIO()
        with settings(self.size):
            self.figure.savefig(content, format="png", dpi=144)
        return content.getvalue()

    def __repr__(self) -> str:
        return f"<ntksweep picture {self.picture.kind}: {self.picture.title}>"


class Plots:
    """The pictures of a sweep, each a method that takes `task` and `size`: `plot.lambda_path(size="column")`.

    They are those of `ntksweep plot --kind`, with _ for -.
    """

    def __init__(self, results: Results) -> None:
        self._results = results

    def __call__(self, kind: str, *, task: str | None = None, size: str = "page") -> Drawing:
        """Return the picture of a kind.

        Args:
            kind: its name, as `ntksweep plot --kind` takes it.
            task: the task to draw, where the grid has several.
            size: `column` or `page` of a paper with two columns, or `slide`.

        Raises:
            ResultsError: there is no such kind, task or size, or the sweep has no such picture; says why.
            OutdatedError: matplotlib is not installed.
        """
        if size not in list(Size):
            raise ResultsError(f"there is no size `{size}`; there are: {', '.join(Size)}")
        picture = picture_named(kind.replace("_", "-"), measured(self._results, task))
        with settings(Size(size)):  # says here if matplotlib is missing
            return Drawing(picture, Size(size))

    def __getattr__(self, name: str) -> Callable[..., Drawing]:
        kind = name.replace("_", "-")
        if kind not in MAKERS:
            raise AttributeError(f"there is no picture `{name}`; pictures: {', '.join(self._names())}")

        def drawn(*, task: str | None = None, size: str = "page") -> Drawing:
            return self(kind, task=task, size=size)

        drawn.__name__ = name
        drawn.__doc__ = f"Return the picture `{kind}`; `task` and `size` as for the command `ntksweep plot`."
        return drawn

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._names()]

    @staticmethod
    def _names() -> list[str]:
        return [kind.replace("-", "_") for kind in MAKERS]

    def __repr__(self) -> str:
        return f"<ntksweep pictures: {', '.join(self._names())}>"


def measured(results: Results, task: str | None = None) -> Measured:
    """Return what a sweep measured, as pictures and summaries take it."""
    return Measured(TablesOfResults(results), work_of(results.folder), task)
