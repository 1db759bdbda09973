"""Sweeps that a program runs: what it may give, what it gets back, and how a run is stopped."""

import io
from contextlib import redirect_stderr
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import ntksweep
from orchestrator.api.page import summary_html
from orchestrator.api.plots import Plots
from orchestrator.errors import ResultsError, SpecError
from orchestrator.results.pictures.kinds import MAKERS
from orchestrator.sweep.folder import ResultsFolder
from tests.orchestrator.sweeps import SPEC, Quiet, changed, make_sweep, run_spec, write_data, write_spec
from tests.orchestrator.sweeps import ntksweep as command

NASTY = "<img src=x onerror=alert(1)>&.parquet"
"""A name of a file that notebooks would load as a picture."""


def tree_in(folder: Path, model: Path, **changes: Any) -> dict[str, Any]:
    return changed(SPEC, {"model.path": model, "results.folder": folder / "results"} | changes)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> ntksweep.Run:
    """The results of a sweep that was given as a dictionary, of data with markup in its name."""
    folder = tmp_path_factory.mktemp("api")
    data = write_data(folder / NASTY)
    return ntksweep.run(tree_in(folder, tiny_model, **{"task.data": data}), False, overrides={"grid.seeds": (0, 1)})


def test_a_run_returns_the_results_of_all_cells_with_a_short_repr(ran: ntksweep.Run):
    assert (ran.n_cells, ran.plan.n_cells, ran.failures, ran.was_finished) == (12, 12, [], False)
    assert len(ran.cells) == 12
    assert isinstance(ran, ntksweep.Results)
    assert repr(ran) == (
        f"<ntksweep run of tiny: 12 of 12 cells, {ran.report.computed} stages computed; results at {ran.folder.root}>"
    )
    assert repr(ran.plan) == f"<ntksweep plan of tiny: 12 cells, {len(ran.plan.stages)} stages>"
    assert repr(ntksweep.load(ran.folder.root)) == f"<ntksweep results at {ran.folder.root}>"


def test_a_spec_file_stands_for_the_results_of_its_sweep(ran: ntksweep.Run, tmp_path: Path):
    spec = write_spec(tmp_path, {"results.folder": str(ran.folder.root)})
    assert ntksweep.load(spec).cells.to_arrow().equals(ran.cells.to_arrow())
    assert ntksweep.load(ran.folder.root / "spec.yaml").folder.root == ran.folder.root
    missing = write_spec(tmp_path, {"results.folder": str(tmp_path / "none")})
    with pytest.raises(ResultsError, match=f"there are no results at {tmp_path / 'none'}"):
        ntksweep.load(missing)


def test_the_names_that_are_listed_are_the_public_ones():
    assert [name for name in dir(ntksweep) if not name.startswith("__")] == sorted(
        name for name in ntksweep.__all__ if not name.startswith("__")
    )


def test_overrides_are_recorded_and_dropping_them_is_an_edited_spec(tmp_path: Path, tiny_model: Path):
    path = make_sweep(tmp_path, {"grid.layer_sets": ["all_layers"]}, model=tiny_model)
    answer = command("run", path, "grid.seeds=[0,1]")
    assert "4 of 4 cells" in answer.output, answer.errors
    stored = ResultsFolder(tmp_path / "results").existing().spec
    assert (stored.overrides, stored.grid.seeds) == (("grid.seeds=[0,1]",), (0, 1))
    assert f"given beside the spec: {stored.overrides[0]}" in command("show", tmp_path / "results").output
    # other seeds join and leave, and the run says with what the folder was run before
    other = command("run", path, "grid.seeds=[2]")
    assert "last run with grid.seeds=[0,1]; this run has grid.seeds=[2]" in " ".join(other.errors.split())
    assert "2 of 2 cells" in other.output
    # other numbers are refused as those of an edited file
    refused = command("run", path, "model.dtype=float32")
    assert 'model.dtype: "float64" in the folder, "float32" now' in refused.errors
    assert "last run with grid.seeds=[2]; this run has model.dtype=float32" in refused.errors
    assert command("plan", path, "grid.seeds=[2]").output.count("0 decompositions to compute") == 1


@pytest.mark.parametrize("name", ["plan", "run", "submit"])
def test_every_command_that_takes_a_spec_answers_unknown_keys(tmp_path: Path, name: str):
    path = make_sweep(tmp_path, model=tmp_path)
    profile = ["--profile", tmp_path / "cluster.yaml"] if name == "submit" else []
    answer = command(name, path, "grid.sed=[1]", *profile)
    assert answer.status == 2
    assert "grid.sed: unknown key `sed`; did you mean `seeds`?" in answer.errors


def test_relative_paths_of_a_dictionary_start_in_the_current_folder(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    write_data(tmp_path / "data.parquet")
    (tmp_path / "model").symlink_to(tiny_model)
    monkeypatch.chdir(tmp_path)
    plan = ntksweep.plan(dict(SPEC), overrides={"grid.seeds": [0, 1, 2]})
    assert plan.n_cells == 18
    assert Path(plan.sweep.sources.data.location) == tmp_path / "data.parquet"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([1], "not of the type list"),
        ("name: x\nmodel: y", "ntksweep.parse_spec"),
        (changed(SPEC, {"grid.sed": 1}), "did you mean `seeds`?"),
        ("missing.yaml", "there is no spec at missing.yaml"),
    ],
)
def test_what_is_no_spec_is_told(given: Any, said: str):
    with pytest.raises(SpecError) as raised:
        ntksweep.run(given)
    assert said in str(raised.value)
    with pytest.raises(SpecError, match="there is no on_change `newer`"):
        ntksweep.run(dict(SPEC), on_change="newer")


class Interrupting(Quiet):
    """Stops the run when some stages are finished, as Ctrl-C would at that time."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def advance(self, kind: str) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def test_an_interrupt_is_one_message_and_the_next_run_goes_on(tmp_path: Path, tiny_model: Path):
    tree = tree_in(tmp_path, tiny_model, **{"task.data": write_data(tmp_path / "data.parquet")})
    with pytest.raises(KeyboardInterrupt) as raised:
        ntksweep.run(tree, Interrupting(4))
    assert str(raised.value) == "interrupted; finished stages are kept. Run the same spec again to go on."
    assert raised.value.__cause__ is raised.value.__context__ is None
    ended = ntksweep.run(tree, progress=False)
    assert (ended.n_cells, ended.failures) == (6, [])
    assert ended.report.computed == len(ended.plan.stages) - 4


def test_progress_is_shown_on_standard_error_or_not_at_all(tmp_path: Path, tiny_model: Path):
    tree = tree_in(tmp_path, tiny_model, **{"task.data": write_data(tmp_path / "data.parquet")})
    shown = io.StringIO()
    with redirect_stderr(shown):
        ntksweep.run(tree, overrides=["grid.layer_sets=[all_layers]"])
        length = len(shown.getvalue())
        ntksweep.run(tree, progress=False)
    assert "solve" in shown.getvalue()[:length]
    assert len(shown.getvalue()) == length


# --- pictures


def test_the_pictures_are_those_of_the_command(ran: ntksweep.Run, tmp_path: Path):
    kinds = {name for name in dir(ran.plot) if name.replace("_", "-") in MAKERS}
    assert len(kinds) == len(MAKERS)
    for name in ("lambda_path", "heatmap", "spectra"):
        drawing = getattr(ran.plot, name)(size="column")
        written = tmp_path / f"{name}.svg"
        kind = name.replace("_", "-")
        assert command("plot", ran.folder.root, "--kind", kind, "--size", "column", "-o", written).status == 0
        assert drawing.save(tmp_path / "own.svg").read_bytes() == written.read_bytes()
        assert drawing._repr_png_().startswith(b"\x89PNG")
        assert len(drawing.figure.axes) >= len(drawing.picture.panels)
        assert len(drawing.rows)


def test_a_picture_that_cannot_be_is_told(ran: ntksweep.Run):
    with pytest.raises(AttributeError, match="no picture `lambda_pat`; pictures: lambda_path"):
        _ = ran.plot.lambda_pat
    with pytest.raises(ResultsError, match="did you mean `lambda-path`"):
        ran.plot("lambda-pat")
    with pytest.raises(ResultsError, match="no picture `trajectories`"):
        ran.plot.trajectories()
    with pytest.raises(ResultsError, match="there is no size `huge`"):
        Plots(ran).heatmap(size="huge")


# --- what notebooks show


class Tags(HTMLParser):
    """Collects the tags of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_notebook_shows_a_summary_in_which_texts_are_escaped(ran: ntksweep.Run):
    for shown in (ran._repr_html_(), ran.cells._repr_html_()):
        page = Tags(shown)
        assert "table" in page.tags
        assert "img" not in page.tags
        assert "layers:0" in page.text
    summary = Tags(ran._repr_html_()).text
    assert NASTY in summary
    assert ran.said in summary
    assert "grid.seeds=[0, 1]" in summary
    assert Tags(ran.cells._repr_html_()).text.count("layers:0") <= 5


def test_failures_are_in_the_summary_escaped(ran: ntksweep.Run):
    failures = [("solve of <i>layers</i>", f"example {n} (`<script>`) is empty") for n in range(7)]
    page = Tags(summary_html(ran, "5 of 12 cells", failures))
    assert {"i", "script"}.isdisjoint(page.tags)
    assert "failed: solve of <i>layers</i>example 4 (`<script>`) is empty" in page.text
    assert "example 5" not in page.text
    assert "and 2 more" in page.text


def test_a_folder_without_tables_says_so_in_place_of_a_summary(tmp_path: Path, tiny_model: Path):
    path = make_sweep(tmp_path, model=tiny_model)
    run_spec(path)
    results = ntksweep.load(tmp_path / "results")
    (tmp_path / "results" / "spec.yaml").unlink()
    assert "spec.yaml is gone" in results._repr_html_()
