"""The report in a browser: its marks are the numbers of the tables, and it works with keys, in the dark, on a phone."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestrator.results.loading import load
from orchestrator.spec import read_spec
from tests.orchestrator.results.report.pages import Page, ShownPicture, browser, needs_chromium, opened
from tests.orchestrator.results.report.sweeps_drawn import HOSTILE, TRAINED, with_failures
from tests.orchestrator.sweeps import make_sweep, ntksweep, run_spec, write_data
from tests.root import ROOT

REFERENCE = ROOT / "results/reference/paper-minilm"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    needs_chromium()
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The results of a sweep that has every picture, and names that a page must escape."""
    folder = tmp_path_factory.mktemp("drawn")
    write_data(folder / DATA, **{HOSTILE: [i % 2 for i in range(40)]})
    changes = {"task.data": DATA, "task.label": HOSTILE, "results.folder": str(folder / "out[/b] <i>")}
    spec = make_sweep(folder, TRAINED | changes, model=tiny_model)
    assert not run_spec(spec).report.failures
    return read_spec(spec).folder


@pytest.fixture(scope="module")
def report(trained: Path) -> Path:
    answer = ntksweep("report", trained)
    assert (answer.status, answer.errors) == (0, "")
    assert answer.output.strip().endswith("report.html has the report")
    return trained / "report.html"


@pytest.fixture(scope="module")
def page(chromium: Any, report: Path) -> Page:
    return opened(chromium, report)


@pytest.fixture(scope="module")
def pictures(page: Page) -> dict[str, ShownPicture]:
    return page.pictures()


DATA = HOSTILE.replace("/", "") + ".parquet"
"""A name of a file, which is that of the task."""

KINDS = {
    "lambda-path", "heatmap", "models", "kernel-numbers", "correlations", "difference", "trajectories", "spectra",
    "densities", "additions", "costs",
}  # fmt: skip

DRAWN: dict[str, list[dict[str, tuple[str, str]]]] = {
    "lambda-path": [
        {"": ("lambda_given", column)}
        for column in ("eval_loss", "eval_accuracy", "finetune_eval_loss", "finetune_eval_accuracy")
    ],
    "kernel-numbers": [
        {"": (column, "finetune_eval_accuracy")}
        for column in ("condition_number_relative_sigma", "trace", "effective_rank")
    ],
    "difference": [
        {"": ("lambda_given", "difference_eval_relative")},
        {
            "error, all layer sets": ("lambda_given", "finetune_linearization_error"),
            "its bound (b/2)|θ − θ₀|²": ("lambda_given", "finetune_linearization_bound"),
        },
    ],
    "trajectories": [
        {
            "fine-tuned, training examples": ("step", "finetune_train_loss"),
            "fine-tuned, evaluation examples": ("step", "finetune_eval_loss"),
            "linearized, training examples": ("step", "linearized_train_loss"),
            "linearized, evaluation examples": ("step", "linearized_eval_loss"),
        }
    ]
    * 3,
    "spectra": [{"": ("place", "eigenvalue")}],
    "densities": [{"": ("eigenvalue", "density")}],
}
"""What is drawn across and up, by panel and series; the empty name is every series."""


@pytest.mark.parametrize("kind", list(DRAWN))
def test_marks_lie_where_the_numbers_of_their_rows_are(pictures: dict[str, ShownPicture], kind: str):
    picture, marked = pictures[kind], set()
    assert len(picture.panels) <= len(DRAWN[kind])
    for panel, of_series in zip(picture.panels, DRAWN[kind], strict=False):
        for name, (x, y) in of_series.items():
            marks = panel.marks if not name else panel.marks[panel.marks["series"] == name]
            rows = picture.rows.loc[marks["row"]]
            assert len(marks), (panel.title, name)
            assert marks["seen"].all()
            if kind == "trajectories":  # a panel has the rows of one lambda
                assert f"λ = {rows['lambda_given'].iloc[0]:.3g}" in panel.title
            assert np.abs(marks["x"] - panel.pixels(rows[x], across=True)).max() < 1, (panel.title, x)
            assert np.abs(marks["y"] - panel.pixels(rows[y], across=False)).max() < 1, (panel.title, y)
            marked |= set(marks["row"])
    assert marked == set(picture.rows.index)


def test_lines_have_a_point_for_every_layer_set_and_lambda(pictures: dict[str, ShownPicture], trained: Path):
    cells = load(trained).cells.to_pandas()
    for panel in pictures["lambda-path"].panels:
        assert len(panel.marks) == cells.groupby(["layer_set", "lambda_given"]).ngroups


def test_rows_of_lines_and_colors_are_means_over_seeds(pictures: dict[str, ShownPicture], trained: Path):
    cells = load(trained).cells.to_pandas()
    for kind in ("lambda-path", "heatmap"):
        for row in pictures[kind].rows.itertuples():
            of_row = cells[(cells["layer_set"] == row.layer_set) & (cells["lambda_given"] == row.lambda_given)]
            assert row.n_seeds == len(of_row) == 2
            for column in ("eval_loss", "eval_accuracy", "finetune_eval_loss", "finetune_eval_accuracy"):
                first, second = of_row[column]
                assert getattr(row, column) == pytest.approx((first + second) / 2, rel=1e-5)
                assert getattr(row, f"{column}_low") == pytest.approx(min(first, second), rel=1e-5)
                assert getattr(row, f"{column}_high") == pytest.approx(max(first, second), rel=1e-5)


def test_colored_cells_stand_in_the_line_and_column_of_their_row(pictures: dict[str, ShownPicture], page: Page):
    picture = pictures["heatmap"]
    lambdas = sorted(picture.rows["lambda_given"].unique())
    layer_sets = list(dict.fromkeys(picture.rows["layer_set"]))
    for panel in picture.panels:
        rows = picture.rows.loc[panel.marks["row"]]
        assert sorted(panel.marks["row"]) == list(picture.rows.index)
        columns, lines = rows["lambda_given"].map(lambdas.index), rows["layer_set"].map(layer_sets.index)
        assert np.abs(panel.marks["x"] - panel.pixels(columns, across=True)).max() < 1
        assert np.abs(panel.marks["y"] - panel.pixels(lines, across=False)).max() < 1
    shades = page.page.eval_on_selector_all(
        "#heatmap svg:first-of-type rect[data-row]",
        "all => all.map(each => [Number(each.dataset.row), each.getAttribute('fill')])",
    )
    # smaller losses are darker
    brightness = {row: sum(int(color[place : place + 2], 16) for place in (1, 3, 5)) for row, color in shades[:12]}
    losses = picture.rows["eval_loss"]
    order = sorted(brightness, key=lambda row: losses[row])
    assert [brightness[row] for row in order] == sorted(brightness.values())


def test_points_of_models_are_means_at_the_best_lambda(pictures: dict[str, ShownPicture], trained: Path):
    cells, picture = load(trained).cells.to_pandas(), pictures["models"]
    prefixes = {"ridge solution": "", "trained linearization": "linearized_", "fine-tuned": "finetune_"}
    assert set(picture.rows["model"]) == set(prefixes)
    for row in picture.rows.itertuples():
        of_set = cells[cells["layer_set"] == row.layer_set]
        losses = of_set.groupby("lambda_given")[f"{prefixes[row.model]}eval_loss"].mean()
        assert row.lambda_given == losses.idxmin()
        values = of_set.loc[of_set["lambda_given"] == losses.idxmin(), f"{prefixes[row.model]}eval_accuracy"]
        assert (row.mean, row.low, row.high) == pytest.approx((values.mean(), values.min(), values.max()), rel=1e-5)
    (panel,) = picture.panels
    assert sorted(panel.marks["row"]) == list(picture.rows.index)
    rows = picture.rows.loc[panel.marks["row"]]
    layer_sets = list(cells["layer_set"].unique())
    assert np.abs(panel.marks["x"] - panel.pixels(rows["mean"], across=True)).max() < 1
    assert (panel.marks["series"].to_numpy() == rows["model"].to_numpy()).all()
    places = panel.pixels(rows["layer_set"].map(layer_sets.index), across=False)
    half = abs(float(np.diff(panel.pixels([0, 0.5], across=False))[0]))
    assert np.abs(panel.marks["y"] - places).max() < half


def test_correlations_are_those_of_the_table(pictures: dict[str, ShownPicture], trained: Path):
    table = load(trained).correlations.to_pandas()
    table = table[table["outcome"] == "finetune_eval_loss"]
    picture, marked = pictures["correlations"], set()
    for panel in picture.panels:
        rows = picture.rows.loc[panel.marks["row"]]
        assert np.abs(panel.marks["x"] - panel.pixels(rows["lambda_given"], across=True)).max() < 1
        assert np.abs(panel.marks["y"] - panel.pixels(rows["spearman"], across=False)).max() < 1
        marked |= set(panel.marks["row"])
    assert marked == set(picture.rows.index)
    key = ["regime", "quantity", "lambda_given"]
    both = picture.rows.merge(table, on=key, suffixes=("", "_there"))
    assert len(both) == len(picture.rows) > 0
    for name in ("spearman", "spearman_low", "spearman_high"):
        assert both[name].to_numpy() == pytest.approx(both[f"{name}_there"].to_numpy(), rel=1e-5, nan_ok=True)


def test_kernel_numbers_are_geometric_means_with_the_outcome_at_the_best_lambda(
    pictures: dict[str, ShownPicture], trained: Path
):
    cells = load(trained).cells.to_pandas()
    for row in pictures["kernel-numbers"].rows.itertuples():
        of_set = cells[cells["layer_set"] == row.layer_set]
        losses = of_set.groupby("lambda_given")["finetune_eval_loss"].mean()
        at_best = of_set[of_set["lambda_given"] == losses.idxmin()]
        assert row.finetune_eval_accuracy == pytest.approx(at_best["finetune_eval_accuracy"].mean(), rel=1e-5)
        for column in ("trace", "effective_rank", "condition_number_relative_sigma"):
            assert getattr(row, column) == pytest.approx(np.exp(np.log(at_best[column]).mean()), rel=1e-5)
        difference = np.exp(np.log(at_best["difference_eval_relative"]).mean())
        assert row.regime == ("linear" if difference <= 0.1 else "nonlinear")


def test_differences_and_bounds_are_geometric_means(pictures: dict[str, ShownPicture], trained: Path):
    cells = load(trained).cells.to_pandas()
    for row in pictures["difference"].rows.itertuples():
        of_row = cells[cells["lambda_given"] == row.lambda_given]
        columns = ["finetune_linearization_error", "finetune_linearization_bound"]
        if row.layer_set != "all layer sets":
            of_row, columns = of_row[of_row["layer_set"] == row.layer_set], ["difference_eval_relative"]
        for column in columns:
            assert getattr(row, column) == pytest.approx(np.exp(np.log(of_row[column]).mean()), rel=1e-5)
            assert getattr(row, f"{column}_high") == pytest.approx(of_row[column].max(), rel=1e-5)


def test_trajectories_are_means_of_the_best_cell_and_the_ends_of_the_grid(
    pictures: dict[str, ShownPicture], trained: Path
):
    results = load(trained)
    cells, table = results.cells.to_pandas(), results.trajectories.to_pandas()
    means = cells.groupby(["layer_set", "lambda_given"])["finetune_eval_loss"].mean()
    best_set, best = means.idxmin()
    rows = pictures["trajectories"].rows
    assert set(rows["layer_set"]) == {best_set}
    assert set(rows["lambda_given"]) == {best, 0.5, 32.0}
    for row in rows.itertuples():
        of_row = table[(table["layer_set"] == best_set) & (table["lambda_given"] == row.lambda_given)]
        of_row = of_row[of_row["step"] == row.step]
        for column in ("finetune_train_loss", "finetune_eval_loss", "linearized_train_loss", "linearized_eval_loss"):
            assert getattr(row, column) == pytest.approx(of_row[column].mean(), rel=1e-5)


def test_eigenvalues_are_those_of_the_first_seed(pictures: dict[str, ShownPicture], trained: Path):
    spectra = load(trained).spectra.to_pandas()
    spectra = spectra[spectra["seed"] == 0].set_index("layer_set")["eigenvalues"]
    rows = pictures["spectra"].rows
    assert set(rows["layer_set"]) == set(spectra.index)
    for row in rows.itertuples():
        assert row.eigenvalue == pytest.approx(spectra[row.layer_set][row.place - 1], rel=1e-5)


def test_densities_are_sums_of_gaussians(pictures: dict[str, ShownPicture], trained: Path):
    results = load(trained)
    spectra = results.spectra.to_pandas()
    spectra = spectra[spectra["seed"] == 0].set_index("layer_set")["eigenvalues"]
    floors = results.cells.to_pandas().query("seed == 0").groupby("layer_set")["noise_floor"].first()
    for name, rows in pictures["densities"].rows.groupby("layer_set"):
        logs = [np.log10(max(value, floors[name])) for value in spectra[name]]
        place = np.log10(rows["eigenvalue"].to_numpy())
        expected = sum(np.exp(-(((place - log) / 0.1) ** 2) / 2) / (0.1 * np.sqrt(2 * np.pi)) for log in logs)
        # places are written with six digits
        assert rows["density"].to_numpy() == pytest.approx(expected, rel=1e-3, abs=1e-3)
        assert np.trapezoid(rows["density"], place) == pytest.approx(len(logs), rel=0.02)


def test_additions_are_relative_to_the_kernel_before(pictures: dict[str, ShownPicture], trained: Path):
    table, picture = load(trained).additions.to_pandas(), pictures["additions"]
    for row in picture.rows.itertuples():
        of_row = table[(table["layer_set"] == row.layer_set) & (table["added_layer"] == row.added_layer)]
        for column in ("sigma_max", "sigma_max_upper", "sigma_max_first_order"):
            ratio = np.log(of_row[column] / of_row["kernel_sigma_max"]).mean()
            assert getattr(row, column) == pytest.approx(np.exp(ratio), rel=1e-5)
        ratio = np.log(of_row["condition_number"] / of_row["kernel_condition_number"]).mean()
        assert row.condition_number == pytest.approx(np.exp(ratio), rel=1e-5)
    for panel, column in zip(picture.panels, ("sigma_max", "condition_number"), strict=True):
        for name, of_series in panel.marks.groupby("series"):
            measured = column if name.startswith("measured") else f"{column}_first_order"
            numbers = picture.rows.loc[of_series["row"], measured]
            assert np.abs(of_series["x"] - panel.pixels(numbers, across=True)).max() < 1


def test_bars_are_as_long_as_time_and_disk(pictures: dict[str, ShownPicture], trained: Path):
    picture = pictures["costs"]
    for row in picture.rows.itertuples():
        files = (trained / "artifacts" / row.stage).rglob("*")
        assert row.bytes == sum(path.stat().st_size for path in files if path.is_file())
    seconds, size = picture.panels
    assert np.abs(seconds.marks["x"] - seconds.pixels(picture.rows["seconds"], across=True)).max() < 1
    unit = {"B": 1, "kB": 1e3, "MB": 1e6}[re.search(r"size \((\w+)\)", size.label)[1]]
    assert np.abs(size.marks["x"] - size.pixels(picture.rows["bytes"] / unit, across=True)).max() < 1


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
