"""The report in a browser: it works with keys, in the dark, on a phone, and for what failed."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.orchestrator.results.report.pages import Page, ShownPicture, opened
from tests.orchestrator.results.report.sweeps_drawn import DATA, HOSTILE, with_failures
from tests.orchestrator.sweeps import ntksweep
from tests.root import ROOT

pytestmark = pytest.mark.xdist_group("report")  # one process makes the sweep of all these files

REFERENCE = ROOT / "results/reference/paper-minilm"

KINDS = {
    "lambda-path", "heatmap", "models", "kernel-numbers", "correlations", "difference", "trajectories", "spectra",
    "densities", "additions", "costs",
}  # fmt: skip


def test_every_picture_is_there_with_a_sentence_units_and_its_rows(pictures: dict[str, ShownPicture], page: Page):
    assert set(pictures) == KINDS
    for kind, picture in pictures.items():
        assert 0 < len(picture.rows) <= 5_000
        assert len(page.page.inner_text(f"#{kind} .says")) > 40
        for panel in picture.panels:
            assert len(panel.marks), (kind, panel.title)
            assert re.fullmatch(r".*Across: .+ \(.+\)\. Up: .+ \(.+\)\.", panel.label), panel.label


def test_nothing_is_loaded_or_executed_and_the_console_is_silent(page: Page, report: Path):
    assert page.requests[0] == report.as_uri()
    assert all(url.startswith("data:") for url in page.requests[1:])
    assert page.console == []
    assert page.page.title() == "tiny – ntksweep"
    assert page.page.locator("script").count() == 1
    # the name of the task is shown as it is
    assert DATA in page.page.inner_text("header")
    assert "out[/b] <i>" in page.page.inner_text("#made")
    assert "<script>document" not in report.read_text()


def test_a_pointer_and_keys_show_the_numbers_of_a_mark(page: Page, pictures: dict[str, ShownPicture]):
    panel = page.page.locator("#lambda-path svg.panel").first
    panel.focus()
    tip = page.page.locator("#tip")
    page.page.keyboard.press("ArrowRight")
    shown = tip.inner_text()
    mark = pictures["lambda-path"].panels[0].marks.iloc[0]
    row = pictures["lambda-path"].rows.loc[mark["row"]]
    assert row["layer_set"] in shown
    assert f"{row['eval_loss']:.6g}" in shown
    page.page.keyboard.press("ArrowDown")
    assert row["layer_set"] not in tip.inner_text().split()
    page.page.keyboard.press("Escape")
    assert tip.is_hidden()
    panel.scroll_into_view_if_needed()
    lowest = page.pictures()["lambda-path"].panels[0].marks.nlargest(1, "y").iloc[0]
    page.page.mouse.move(lowest["x"] + 1, lowest["y"] + 3)
    row = pictures["lambda-path"].rows.loc[lowest["row"]]
    assert row["layer_set"] in tip.inner_text()
    assert f"{row['eval_loss']:.6g}" in tip.inner_text()
    page.page.mouse.move(5, 5)
    assert tip.is_hidden()


def test_a_key_on_the_legend_leaves_one_series(page: Page):
    button = page.page.locator("#lambda-path .legend button").first
    button.focus()
    page.page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    opacity = "all => all.map(each => Number(getComputedStyle(each).opacity))"
    seen = page.page.eval_on_selector_all("#lambda-path svg:first-of-type .series", opacity)
    assert sorted(seen)[-1] == 1
    assert max(sorted(seen)[:-1]) < 0.2
    page.page.keyboard.press("Enter")
    assert set(page.page.eval_on_selector_all("#lambda-path .series", opacity)) == {1}


@pytest.mark.parametrize(("width", "dark"), [(1400, False), (1400, True), (390, False)])
def test_people_with_little_sight_can_read_it(chromium: Any, report: Path, width: int, dark: bool):
    from axe_playwright_python.sync_playwright import Axe

    page = opened(chromium, report, width=width, dark=dark)
    found = Axe().run(page.page).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")] == []
    # nothing must be moved sideways to be read
    assert page.page.evaluate("document.documentElement.scrollWidth") <= width
    page.page.close()


def test_what_failed_is_said_once_and_as_it_was(chromium: Any, finished: Path, tmp_path: Path):
    folder = with_failures(finished, tmp_path / "failed[/b]", f"cannot go on: {HOSTILE}")
    assert ntksweep("report", folder).status == 0
    page = opened(chromium, folder / "report.html")
    text = page.page.inner_text("#failures")
    assert f"cannot go on: {HOSTILE}" in text
    assert "seed 1" in text
    assert page.page.locator("#failures details").count() == 1  # they failed alike
    assert "6 of 12 cells are in the tables" in page.page.inner_text("#summary")
    assert page.page.title() == "tiny – ntksweep"
    assert page.console == []
    picture = page.pictures()["lambda-path"]
    assert set(picture.rows["n_seeds"]) == {1}
    # one seed has no bands and no bars, and the page says so
    assert page.page.locator(".band, .whisker").count() == 0
    assert "One seed" in page.page.inner_text("#summary")
    page.page.close()


def test_a_sweep_without_a_finished_cell_says_what_failed(chromium: Any, finished: Path, tmp_path: Path):
    folder = with_failures(finished, tmp_path / "failed", "all is lost")
    shutil.rmtree(folder / "tables")
    assert ntksweep("report", folder, "-o", tmp_path / "page.html").status == 0
    page = opened(chromium, tmp_path / "page.html")
    assert "all is lost" in page.page.inner_text("#failures")
    assert set(page.pictures()) == {"costs"}
    for line in page.page.locator("#made li:has(strong)").all_inner_texts():
        assert len(line) > 30  # why it has no picture
    page.page.close()


def test_the_trained_reference_study_is_drawn_from_its_files(chromium: Any, tmp_path: Path):
    answer = ntksweep("report", REFERENCE, "--output", tmp_path / "page.html")
    assert (answer.status, answer.errors) == (0, "")
    page = opened(chromium, tmp_path / "page.html", width=390)
    pictures = page.pictures()
    assert {"lambda-path", "heatmap", "models", "kernel-numbers", "correlations", "difference"} == set(pictures)
    cells = pd.read_parquet(REFERENCE / "cells.parquet")
    titles = [panel.title for panel in pictures["models"].panels]
    assert titles == list(cells["task"].unique())
    path = pictures["lambda-path"]
    for panel in path.panels:
        task = panel.title.partition(":")[0]
        column = f"{'finetune_' if 'fine-tuned' in panel.title else ''}eval_{panel.title.rpartition(' ')[2]}"
        rows = path.rows.loc[panel.marks["row"]]
        assert set(rows["task"]) == {task}
        assert len(rows) == 9 * 8
        assert np.abs(panel.marks["y"] - panel.pixels(rows[column], across=False)).max() < 1
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.console == []
    page.page.close()
