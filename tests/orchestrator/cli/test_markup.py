"""Names of users are printed as they wrote them: not as markup, not as emoji, not as a control sequence."""

import contextlib
from pathlib import Path

import pytest
from rich.live import Live

from orchestrator.cli.progress import Bars
from orchestrator.cli.render import rows_table
from orchestrator.cli.terminal import Terminal, line, say
from orchestrator.literal import printable
from tests.orchestrator.sweeps import Answer, ntksweep, write_data, write_spec
from tests.tiny_models import save_tiny

RESULTS = "out[/INST] [red] :smile:"
MODEL = "a[/INST]"
LABEL = "[red]label[/INST]"
TRAINED = {
    "task.n_eval": 4,
    "task.label": LABEL,
    "grid.n_train": [8],
    "grid.layer_sets": ["all_layers"],
    "finetune": {
        "optimizer": "gradient_descent",
        "learning_rate": 0.05,
        "epochs": 2,
        "num_evaluations": 1,
        "kernel_examples": 3,
    },
}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished sweep whose model, data, label and results have names that Rich would read as markup."""
    folder = tmp_path_factory.mktemp("markup")
    write_data(folder / "[exp1] data.parquet", **{LABEL: [i % 2 for i in range(40)]})
    save_tiny("bert", folder / MODEL)
    changes = {"model.path": MODEL, "task.data": "[exp1] data.parquet", "results.folder": RESULTS} | TRAINED
    spec = write_spec(folder, changes, name="[bold]sweep.yaml")
    with contextlib.chdir(folder):
        answer = ntksweep("run", spec)
    assert answer.status == 0, answer
    assert RESULTS in answer.output
    return folder


@pytest.fixture(autouse=True)
def wide_terminal(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns of tables as wide as their contents, and paths from the sweep's own folder."""
    monkeypatch.setenv("COLUMNS", "500")
    monkeypatch.chdir(sweep)


def looks() -> dict[str, tuple[list[str], str]]:
    """Return commands, by a name, with what of the user's they show."""
    spec = "[bold]sweep.yaml"
    return {
        "plan": (["plan", spec], f"results: {Path(RESULTS).resolve()}"),
        "run": (["run", spec], f"cells in {RESULTS}/tables/cells"),
        "status": (["status", RESULTS], "of 2 cells finished"),
        "status of the spec": (["status", spec, "--verify"], "every artifact and table matches"),
        "status of nothing": (["status", f"{RESULTS}/none"], f"{RESULTS}/none"),
        "show": (["show", RESULTS], "layers:0-1"),
        "show a layer set": (["show", RESULTS, "--layer-set", "x[/INST]"], "no layer set `x[/INST]`"),
        "select": (["select", RESULTS], "layers:0-1"),
        "select a task": (["select", RESULTS, "--task", "t[/INST]:smile:"], "t[/INST]:smile:"),
        "export": (["export", RESULTS, "-o", "[red]/x[/INST].csv"], "rows in [red]/x[/INST].csv"),
        "export in no format": (["export", RESULTS, "-o", "x.[red] :smile:"], "cannot be told from `x.[red] :smile:`"),
        "report": (["report", RESULTS, "-o", "page[/INST] :smile:.html"], "page[/INST] :smile:.html has the report"),
        "plot": (["plot", RESULTS, "-o", "[red]/x[/INST].pdf", "--force"], "[red]/x[/INST].pdf has the figure"),
        "plot of no kind": (["plot", RESULTS, "-o", "x.pdf", "--kind", "k[/INST]"], "no picture `k[/INST]`"),
        "findings": (["findings", RESULTS, "-o", "page[/INST] :smile:"], "page[/INST] :smile:/README.md has"),
        "logs": (["logs", RESULTS], RESULTS),
        "logs of a cell": (["logs", RESULTS, "--cell", "c[/INST]"], "c[/INST]"),
        "doctor": (["doctor", "--folder", RESULTS], RESULTS),
        "init": (["init", "[red]/new[/INST].yaml", "--force", "--full"], "[red]/new[/INST].yaml is a spec"),
        "no such command": (["[red]pl[/INST]"], "'[red]pl[/INST]'"),
        "no such option": (["plan", spec, "--x[/INST]"], "--x[/INST]"),
        "no such model": (["plan", "no[/INST]:smile:.yaml"], "no[/INST]:smile:.yaml"),
    }


@pytest.mark.parametrize("look", list(looks()))
def test_names_with_brackets_and_colons_are_shown_as_they_are(look: str):
    arguments, expected = looks()[look]
    answer = ntksweep(*arguments)
    assert expected in answer.output + answer.errors
    assert "Traceback" not in answer.errors


def test_no_control_character_of_an_argument_reaches_the_terminal():
    for arguments in (
        ["plan", "no\x1b[31m\x9b\x07.yaml"],
        ["show", RESULTS, "--x\x1b[31m9\x07"],
        ["\x1b[31mplan"],
        ["status", "no\x1b]0;title\x07"],
        ["export", RESULTS, "-o", "\x1b[31mx\r.csv"],
        ["plan", "no\x1b[31m.yaml", "--traceback"],
    ):
        shown = _whole(ntksweep(*arguments))
        assert not set(shown) & {"\x1b", "\x07", "\x9b", "\r"}
        assert "\\x1b" in shown


def test_failures_tables_bars_and_views_escape_control_characters(capsys: pytest.CaptureFixture[str]):
    terminal, spoilt = Terminal(stderr=True), "x\x1b[31m[/INST] :smile:"
    terminal.print(rows_table((spoilt, spoilt), [(spoilt, spoilt)], title=spoilt))
    terminal.print(spoilt, style="red")
    terminal.print(line(spoilt, "red"))
    with Live(line(spoilt), console=terminal, auto_refresh=False):
        pass
    with Bars(terminal) as bars:
        bars.begin({"[/INST] :smile:": 1}, {"[/INST] :smile:": 0})
        bars.note(spoilt)
    say(spoilt)
    captured = capsys.readouterr()
    assert "\x1b" not in captured.err + captured.out
    assert captured.err.count(r"x\x1b[31m[/INST] :smile:") == 9
    assert captured.err.count("[/INST] :smile:") > 9  # the bar
    assert captured.out == "x\\x1b[31m[/INST] :smile:\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("naïve 日本 \U0001f600", "naïve 日本 \U0001f600"),
        ("\x00\x08\r\x7f\x85", r"\x00\x08\r\x7f\x85"),
        ("a\u202egpj.exe", r"a\u202egpj.exe"),
        ("not text \udce9", r"not text \udce9"),
    ],
)
def test_only_what_a_terminal_would_obey_is_escaped(text: str, shown: str):
    assert printable(text) == shown


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", RESULTS, "-o", "file/x.csv"],
        ["export", RESULTS, "-o", "folder.csv"],
        ["export", RESULTS, "-o", "folder.parquet"],
        ["findings", RESULTS, "-o", "file"],
        ["findings", RESULTS, "-o", "file/page"],
        ["report", RESULTS, "-o", "file/page.html"],
        ["report", RESULTS, "-o", "folder.csv", "--force"],
        ["plot", RESULTS, "-o", "folder.pdf", "--force"],
        ["init", "file/x.yaml", "--full"],
        ["init", "folder.csv", "--force", "--full"],
    ],
)
def test_a_place_that_cannot_be_written_is_one_message(arguments: list[str]):
    Path("file").touch()
    for folder in ("folder.csv", "folder.parquet", "folder.pdf"):
        Path(folder).mkdir(exist_ok=True)
    answer = ntksweep(*arguments)
    assert answer.status == 4
    assert "cannot be written: something else lies there" in answer.errors
    assert "Traceback" not in answer.errors


def _whole(answer: Answer) -> str:
    return answer.output + answer.errors
