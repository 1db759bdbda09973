"""The commands that draw: figures for papers have the numbers of the picture, and no file is lost."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from orchestrator.cli.app import app
from orchestrator.results.drawing.paper import CREATOR, Size, draw
from orchestrator.results.loading import load
from orchestrator.results.pictures.kinds import MAKERS, picture_named
from orchestrator.results.pictures.measured import Measured
from orchestrator.results.pictures.numerals import shortest
from orchestrator.results.pictures.picture import MOST_ROWS, Form, Missing, Picture
from orchestrator.results.pictures.tables import TablesOfResults, WrittenTables
from orchestrator.results.report.summary import summarize
from orchestrator.spec import read_spec
from tests.orchestrator.sweeps import ntksweep
from tests.root import ROOT

REFERENCE = ROOT / "results/reference/paper-minilm"


@pytest.fixture(scope="module")
def measured() -> Measured:
    return Measured(WrittenTables(REFERENCE), task="movies")


@pytest.mark.parametrize("kind", ["lambda-path", "models", "kernel-numbers", "correlations", "difference"])
def test_a_figure_has_the_marks_of_its_picture(measured: Measured, kind: str):
    picture = picture_named(kind, measured)
    figure = draw(picture, Size.PAGE)
    axes = [each for each in figure.axes if each.get_title(loc="left")]
    assert len(axes) == len(picture.panels)
    for drawn, panel in zip(axes, picture.panels, strict=True):
        assert drawn.get_xlabel() == panel.x.title
        found = {tuple(map(tuple, np.column_stack(line.get_data()))) for line in drawn.get_lines()}
        for series in panel.series:
            assert tuple(map(tuple, np.column_stack((series.x, series.y)))) in found, (panel.title, series.name)
        low, high = sorted(drawn.get_xlim())
        for series in panel.series:
            assert series.form is not Form.BARS
            assert ((series.x >= low) & (series.x <= high)).all()


def test_a_heatmap_has_a_color_for_every_row(measured: Measured):
    picture = picture_named("heatmap", measured)
    for axes in draw(picture, Size.SLIDE).axes[: len(picture.panels)]:
        assert len(axes.collections[0].get_paths()) == len(picture.rows) == 72


@pytest.mark.parametrize(
    ("name", "start"), [("f.pdf", b"%PDF"), ("f.png", b"\x89PNG"), ("f.svg", b"<?xml"), ("f.eps", b"%!PS")]
)
def test_the_ending_says_the_format_and_an_earlier_figure_is_replaced_alone(tmp_path: Path, name: str, start: bytes):
    command = ["plot", REFERENCE, "--task", "amazon", "--size", "column", "--output", tmp_path / name]
    answer = ntksweep(*command)
    assert (answer.status, answer.errors) == (0, "")
    content = (tmp_path / name).read_bytes()
    assert content.startswith(start)
    assert ntksweep(*command).status == 0
    if not name.endswith("eps"):  # has the time
        assert (tmp_path / name).read_bytes() == content  # the same numbers, the same bytes
    theirs = content.replace(CREATOR.encode(), b"drawn by hand".ljust(len(CREATOR)))
    assert len(theirs) == len(content) and theirs != content
    (tmp_path / name).write_bytes(theirs)
    refused = ntksweep(*command)
    assert refused.status == 2
    assert "is no figure of ntksweep; name another file, or give --force" in refused.errors
    assert (tmp_path / name).read_bytes() == theirs
    assert ntksweep(*command, "--force").status == 0
    assert (tmp_path / name).read_bytes() != theirs


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--kind", "heatmaps"], "no picture `heatmaps`; did you mean `heatmap`?"),
        (["--kind", "trajectories"], "The table `trajectories` is not there"),
        (["--kind", "additions"], "kernel.additions is false"),
        (["--size", "huge"], "no size `huge`; there are: column, page, slide"),
        (["--task", "[/b]"], "no cells of a task `[/b]`; there are: amazon, movies"),
    ],
)
def test_what_cannot_be_drawn_is_said(tmp_path: Path, options: list[str], said: str):
    answer = ntksweep("plot", REFERENCE, "-o", tmp_path / "f.pdf", *options)
    assert answer.status == 2
    assert said in answer.errors
    assert list(tmp_path.iterdir()) == []


def test_a_format_that_is_none_is_refused(tmp_path: Path):
    answer = ntksweep("plot", REFERENCE, "-o", tmp_path / "figure")
    assert answer.status == 2
    assert "end it in .pdf, .svg, .png or .eps" in answer.errors


def test_the_command_names_every_kind():
    (command,) = [each for each in app.registered_commands if each.name == "plot"]
    help_of = str(command.callback.__annotations__["kind"].__metadata__[0].help)
    assert help_of.removesuffix(".").replace(" or ", ", ").split(", ") == list(MAKERS)


def test_only_an_earlier_report_is_replaced(finished: Path, tmp_path: Path):
    folder, page = read_spec(finished).folder, tmp_path / "page.html"
    page.write_text("somebody's work")
    answer = ntksweep("report", folder, "-o", page)
    assert answer.status == 2
    assert "is no report of ntksweep; name another file, or give --force" in answer.errors
    assert page.read_text() == "somebody's work"
    assert ntksweep("report", folder, "-o", page, "--force").status == 0
    written = page.read_bytes()
    assert ntksweep("report", folder, "-o", page).status == 0
    assert page.read_bytes() == written  # the same numbers, the same page


def test_where_the_report_cannot_go_another_file_is_offered(finished: Path, tmp_path: Path):
    shutil.copytree(read_spec(finished).folder, tmp_path / "results")
    (tmp_path / "results" / "report.html").mkdir()
    answer = ntksweep("report", tmp_path / "results")
    assert answer.status == 4
    assert answer.errors.endswith("run the same command again, or give --output FILE\n")
    answer = ntksweep("report", tmp_path / "results", "-o", tmp_path / "results" / "report.html")
    assert answer.errors.endswith("run the same command again\n")


@pytest.mark.parametrize(
    ("missing", "command", "said"),
    [
        ("jinja2", ["report", str(REFERENCE), "-o", "page.html"], "pip install 'ntksweep[report]'"),
        ("matplotlib", ["plot", str(REFERENCE), "-o", "figure.pdf"], "pip install 'ntksweep[report]'"),
    ],
)
def test_a_library_that_is_missing_is_named_with_the_line_that_installs_it(
    tmp_path: Path, missing: str, command: list[str], said: str
):
    code = f"import sys; sys.modules[{missing!r}] = None\nfrom orchestrator.cli import main; main()"
    answer = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (answer.returncode, answer.stdout) == (2, "")
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr
    assert list(tmp_path.iterdir()) == []


def test_pictures_are_bounded_and_say_what_they_leave_out():
    everything = Measured(WrittenTables(REFERENCE))
    some = everything.cells[everything.cells["task"] == "amazon"]
    # thirty times as many layer sets, and as many lambdas as fill 5,000 rows many times over
    parts = []
    for copy in range(30):
        for further in range(4):
            part = some.assign(layer_set=[f"{name}/{copy}" for name in some["layer_set"]])
            parts.append(part.assign(lambda_given=part["lambda_given"] * (1 + further / 7)))
    large = Measured(WrittenTables(REFERENCE))
    large.__dict__["cells"] = type(some)(
        {name: np.concatenate([part[name].to_numpy() for part in parts]) for name in some}
    )
    for make in MAKERS.values():
        found = make(large)
        if isinstance(found, Picture):
            assert len(found.rows) <= MOST_ROWS, found.kind
    path = picture_named("lambda-path", large)
    assert path.rows["layer_set"].nunique() == MOST_ROWS // 32
    assert "Drawn are the 156 best of 270 layer sets." in path.note
    best = large.cells.groupby(["layer_set", "lambda_given"])["finetune_eval_loss"].mean().groupby("layer_set").min()
    assert best[path.rows["layer_set"].unique()].max() <= best.nsmallest(157).iloc[-1]


def test_one_seed_one_layer_set_and_one_lambda_give_pictures_and_reasons():
    single = Measured(WrittenTables(REFERENCE), task="amazon")
    cells = single.cells
    first = cells[(cells["layer_set"] == "layers:3") & (cells["seed"] == 0)]
    single.__dict__["cells"] = first[first["lambda_given"] == first["lambda_given"].min()].reset_index(drop=True)
    found = {kind: make(single) for kind, make in MAKERS.items()}
    assert {kind for kind, each in found.items() if isinstance(each, Missing)} == {
        "kernel-numbers", "trajectories", "spectra", "densities", "additions", "costs",
    }  # fmt: skip
    path = found["lambda-path"]
    assert isinstance(path, Picture)
    assert "one λ only" in path.says
    assert "There is one seed" in path.note
    assert all(each.low is None for panel in path.panels for each in panel.series)
    for each in found.values():
        if isinstance(each, Picture):
            draw(each, Size.COLUMN)


def test_a_layer_set_that_lacks_seeds_is_not_called_the_best():
    partial = Measured(WrittenTables(REFERENCE), task="amazon")
    cells = partial.cells
    best = partial.ranking[0]
    seeds = cells[cells["layer_set"] == best].groupby("seed")["finetune_eval_loss"].min()
    lucky = (cells["layer_set"] == best) & (cells["seed"] != seeds.idxmin())
    partial = Measured(WrittenTables(REFERENCE), task="amazon")
    partial.__dict__["cells"] = cells[~lucky].reset_index(drop=True)
    assert partial.ranking[-1] == best
    summary = summarize(partial)
    assert summary.best[0].rows[0][0] != best
    assert any("1 of 9 layer sets lack seeds" in line for line in summary.cautions)
    path = picture_named("lambda-path", partial)
    assert f"with {best} at" not in path.says


def test_of_several_training_sets_the_largest_is_drawn_and_a_regression_has_correlations(finished_regression: Path):
    measured = Measured(TablesOfResults(load(read_spec(finished_regression).folder)))
    path = picture_named("lambda-path", measured)
    assert set(path.rows["n_train"]) == {24}
    assert "Of 2 combinations of task, rank, learning rate and training-set size 1 can be seen here" in path.note
    assert [panel.y.label for panel in path.panels] == ["loss", "Pearson correlation"]
    assert [panel.title for panel in path.panels] == [
        "n = 24: ridge solution, loss", "n = 24: ridge solution, Pearson correlation",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.317, ".32"), (-0.317, "-0.32"), (1.5, "1.50"), (13.6, "14"), (2510.0, "3e3"), (0.0004, "4e-4"), (0.0, "0")],
)
def test_numbers_of_colored_cells_fit_them(value: float, shown: str):
    assert shortest(value) == shown
