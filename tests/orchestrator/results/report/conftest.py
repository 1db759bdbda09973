"""A sweep that has every picture, and its report in a browser: made once for all files here."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.spec import read_spec
from tests.orchestrator.results.report.pages import Page, ShownPicture, browser, needs_chromium, opened
from tests.orchestrator.results.report.sweeps_drawn import DATA, HOSTILE, TRAINED
from tests.orchestrator.sweeps import make_sweep, ntksweep, run_spec, write_data


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    needs_chromium()
    with browser() as started:
        yield started


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The results of a sweep that has every picture, and names that a page must escape."""
    folder = tmp_path_factory.mktemp("drawn")
    write_data(folder / DATA, **{HOSTILE: [i % 2 for i in range(40)]})
    changes = {"task.data": DATA, "task.label": HOSTILE, "results.folder": str(folder / "out[/b] <i>")}
    spec = make_sweep(folder, TRAINED | changes, model=tiny_model)
    assert not run_spec(spec).report.failures
    return read_spec(spec).folder


@pytest.fixture(scope="session")
def report(trained: Path) -> Path:
    answer = ntksweep("report", trained)
    assert (answer.status, answer.errors) == (0, "")
    assert answer.output.strip().endswith("report.html has the report")
    return trained / "report.html"


@pytest.fixture(scope="session")
def page(chromium: Any, report: Path) -> Page:
    return opened(chromium, report)


@pytest.fixture(scope="session")
def pictures(page: Page) -> dict[str, ShownPicture]:
    return page.pictures()
