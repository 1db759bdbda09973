"""The marks of a report in a browser are the numbers of the tables, at the places of those numbers."""

import re
from pathlib import Path

import numpy as np
import pytest

from orchestrator.results.loading import load
from tests.orchestrator.results.report.pages import Page, ShownPicture

pytestmark = pytest.mark.xdist_group("report")  # one process makes the sweep of all these files

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
