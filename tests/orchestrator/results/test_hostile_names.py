"""Results of somebody else whose every text is hostile: no control sequence and no HTML reaches the reader."""

from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pytest

from tests.orchestrator.sweeps import Answer, make_sweep, ntksweep, results_of, rewrite_table, run_spec

CONTROL = "\x1b\x9b\x07\u202e"
HOSTILE = (
    "\x1b]0;taken\x07\x1b[31m\x9b2J\u202e\"'`></script></style></svg><script>taken()</script><img src=x onerror=t>"
)
TRAINING = {"learning_rate": 0.05, "epochs": 1, "batch_size": 4, "num_evaluations": 1, "kernel_examples": 0}


class Tags(HTMLParser):
    """The tags of a page, and its attributes that run code."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A results folder in which every text of every table was made hostile."""
    spec = make_sweep(tmp_path_factory.mktemp("hostile"), {"finetune": TRAINING}, model=tiny_model)
    run_spec(spec)
    results = results_of(spec)
    for name in results.names:
        rows = results.table(name).to_arrow()
        for place, field in enumerate(rows.schema):
            if pa.types.is_string(field.type):
                texts = [None if text is None else f"{text}{HOSTILE}" for text in rows[field.name].to_pylist()]
                rows = rows.set_column(place, field, pa.array(texts, field.type))
        rewrite_table(results.folder.root, name, rows)
    return results.folder.root


def said(answer: Answer) -> str:
    assert answer.status in (0, 2)  # no layer set has the name that it is asked for
    both = answer.output + answer.errors
    assert not set(CONTROL) & set(both), both
    assert "Warning" not in both
    return both


@pytest.mark.parametrize("command", [["show"], ["show", "--layer-set", "0"], ["select"], ["status", "--all"], ["logs"]])
def test_a_terminal_gets_no_control_sequence(command: list[str], folder: Path) -> None:
    said(ntksweep(command[0], folder, *command[1:]))


def test_a_report_has_no_script_but_its_own(folder: Path, tmp_path: Path) -> None:
    said(ntksweep("report", folder, "-o", tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    tags = Tags(page)
    assert (tags.names.count("script"), tags.names.count("img"), tags.handlers) == (1, 0, [])
    assert "taken()" in page
    assert not set(CONTROL) & set(page)


def test_findings_have_no_html(folder: Path, tmp_path: Path) -> None:
    said(ntksweep("findings", folder, "-o", tmp_path / "found"))
    page = (tmp_path / "found" / "README.md").read_text(encoding="utf-8")
    assert "taken()" in page
    assert "<" not in page
    assert not set(CONTROL) & set(page)


@pytest.mark.parametrize("ending", ["svg", "pdf", "png"])
def test_a_figure_of_names_that_the_font_lacks_warns_of_nothing(ending: str, folder: Path, tmp_path: Path) -> None:
    said(ntksweep("plot", folder, "--kind", "lambda-path", "-o", tmp_path / f"figure.{ending}"))
    if ending == "svg":
        assert "script" not in Tags((tmp_path / "figure.svg").read_text(encoding="utf-8")).names
