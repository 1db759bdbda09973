"""`ntksweep init`: a short spec for data and a model that it looks into, which runs as it is."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import beginning
from orchestrator.spec import read_spec
from orchestrator.spec.examples import example_names, example_text, is_profile
from orchestrator.spec.starting import MOST_LINES
from tests.orchestrator.sweeps import ntksweep
from tests.root import ROOT

WITHOUT_LIBRARIES = """
import sys

sys.modules.update(dict.fromkeys(["transformers", "peft", "ray", "datasets"]))
from orchestrator.cli import main
main()
"""


def write_csv(path: Path, names: list[str], rows: list[list[Any]], delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow(names)
        writer.writerows(rows)
    return path


def begun(folder: Path, data: Path, model: Path, *options: str) -> str:
    """Return the spec that `init` writes, which `plan` takes."""
    spec = folder / "mine.yaml"
    answer = ntksweep("init", spec, "--data", data, "--model", model, "--force", *options)
    assert (answer.status, answer.errors) == (0, ""), answer.errors
    written = spec.read_text()
    assert len(written.splitlines()) <= MOST_LINES
    return written


def test_a_spec_for_ones_own_data_says_what_was_found_and_runs(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    topics = ["<script>", "[/b]", "Business"]
    rows = [[n, "very " * n + "good film", topics[n % 3], "x"] for n in range(24)]
    (tmp_path / "[").mkdir()
    write_csv(tmp_path / "[" / "b].csv", ["", "headline", "category", "source"], rows, delimiter=";")
    written = begun(tmp_path, Path("[/b].csv"), tiny_model)
    for said in (
        "  data: '[/b].csv' # 24 rows; other columns: source",
        "  text: headline",
        "  label: category",
        "  kind: classification # 3 classes: <script> 8, Business 8, [/b] 8",
        "  labels: {<script>: 0, Business: 1, '[/b]': 2}",
        "  n_eval: 6 # examples to evaluate on, which are never trained on",
        "target_modules: [query, value]} # the model also has: key, dense",
        "head: {in_kernel: false} # to compare the layers alone",
        "  n_train: [18] # training examples",
        "tokens that are kept of a text: 95 % have",
    ):
        assert said in written
    plan = ntksweep("plan", "mine.yaml")
    assert (
        'classes among the 24 examples of split train: 8 of class 0 "<script>" (33 %), 8 of class 1 "Business" (33 %), '
        '8 of class 2 "[/b]" (33 %)' in plan.output
    )
    facts = json.loads(ntksweep("plan", "mine.yaml", "--json").output)["classes"]["mine"]
    assert facts[2] == {"class": 2, "labels": ["[/b]"], "train": 8, "evaluation": 8}
    assert read_spec(tmp_path / "mine.yaml").task.labels == {"<script>": 0, "Business": 1, "[/b]": 2}
    ran = ntksweep("run", "mine.yaml", "--executor", "inline", "--json")
    assert ran.status == 0
    assert json.loads(ran.output)["cells_in_tables"] == 3 * 6 * 2


@pytest.mark.parametrize(
    ("names", "rows", "said"),
    [
        (["text", "stars"], [["a", 1 + n % 5] for n in range(20)], "labels: {'1': 0, '2': 1, '3': 2, '4': 3, '5': 4}"),
        (["text", "score"], [["a", n / 7] for n in range(20)], "kind: regression"),
        (["question1", "question2", "label"], [["a", "it", n % 2] for n in range(20)], "text_pair: question2"),
        (["text", "label"], [["a" if n % 5 else " ", n % 2] for n in range(20)],
         "skip_blank_texts: true # leaves 4 rows out"),
        (["text", "label"], [["a" if n else " ", n % 2] for n in range(20)],
         "skip_blank_texts: true # leaves 1 row out"),
        (["text", "label"], [["very " * (n % 4) + "good", n % 2] for n in range(20)],
         "text: text # 16 rows repeat a text of an earlier one"),
        (["text", "label"], [["a", ["Good", "bad", "good", "N/A", ""][n % 5]] for n in range(20)],
         "labels: {bad: 0, Good: 1, good: 1, N/A: null, '': null} # null leaves 8 rows out"),
        (["text", "label"], [["a", f"intent {n % 12}"] for n in range(48)], "kernel: {outputs: trace}"),
        (["text", "label"], [["very " * max(n, 1) + "good", n % 2] for n in range(20)],
         "distinct_texts: true # takes each text once: 1 row repeats a text of an earlier one"),
        (["text", "label"], [["a", ["x\ny", "z#: {" * 9][n % 2]] for n in range(20)],
         "labels: {\"x\\U0000000ay\": 0, 'z#: {"),
    ],
)  # fmt: skip
def test_labels_and_texts_of_every_kind_get_the_keys_that_they_need(
    tmp_path: Path, tiny_model: Path, names: list[str], rows: list[list[Any]], said: str
):
    data = write_csv(tmp_path / "data.csv", names, [[*row[:-1], row[-1]] for row in rows])
    assert said in begun(tmp_path, data, tiny_model)
    assert ntksweep("plan", tmp_path / "mine.yaml").status == 0


def test_a_label_that_seems_mistyped_is_asked_about_and_the_answer_can_be_pasted(tmp_path: Path, tiny_model: Path):
    rows = [["a film", ["negative", "positive"][n % 2]] for n in range(40)]
    data = write_csv(tmp_path / "data.csv", ["text", "label"], [*rows, ["a plot", "postive"]])
    answer = ntksweep("init", tmp_path / "mine.yaml", "--data", data, "--model", tiny_model)
    said = "label `postive` stands once; did you mean `positive`? Then write task.labels: "
    (line,) = (line for line in answer.output.splitlines() if line.startswith(said))
    assert line in ntksweep("plan", tmp_path / "mine.yaml").output
    plan = ntksweep("plan", tmp_path / "mine.yaml", f"task.labels={line.removeprefix(said)}").output
    assert '21 of class 1 "positive" or "postive" (51 %)' in plan
    assert "did you mean" not in plan


def test_rows_that_the_spec_leaves_out_are_counted_by_plan(tmp_path: Path, tiny_model: Path):
    rows = [["very " * n + "good", ["bad", "good"][n % 2]] for n in range(1, 31)]
    odd = [["a plot", ""], ["a story", ""], [" ", "bad"], [" very  good", "bad"]]
    data = write_csv(tmp_path / "data.csv", ["text", "label"], [*rows, *odd])
    begun(tmp_path, data, tiny_model)
    said = "rows left out: 2 with no label, 1 with a blank text, 1 with a text that another one has"
    assert said in ntksweep("plan", tmp_path / "mine.yaml").output


def test_the_last_line_trains_every_cell_once_it_is_no_comment(tmp_path: Path, tiny_model: Path):
    data = write_csv(tmp_path / "data.csv", ["text", "label"], [["a film", n % 2] for n in range(20)])
    written = begun(tmp_path, data, tiny_model)
    *others, last = written.splitlines()
    assert last == "# finetune: {learning_rate: 0.001, epochs: 10} # without the first #, every cell is trained too"
    (tmp_path / "mine.yaml").write_text("\n".join([*others, last.removeprefix("# ")]))
    assert read_spec(tmp_path / "mine.yaml").finetune.epochs == 10
    assert ntksweep("plan", tmp_path / "mine.yaml").status == 0


def test_splits_of_a_folder_are_taken_by_their_names(tmp_path: Path, tiny_model: Path):
    folder = tmp_path / "data"
    folder.mkdir()
    write_csv(folder / "train.csv", ["text", "label"], [["a film", "ab"[n % 2]] for n in range(20)])
    write_csv(folder / "test.csv", ["text", "label"], [["a plot", "abc"[n % 3]] for n in range(9)])
    written = begun(tmp_path, folder, tiny_model)
    assert "eval_split: test # 9 rows" in written
    assert "3 classes: a 10, b 10, c 0" in written
    assert (
        'no training example is of class 2 "c": nothing is learned about it'
        in ntksweep("plan", tmp_path / "mine.yaml").output
    )


@pytest.mark.parametrize(
    ("names", "rows", "said"),
    [
        (["[/b]", "<u>"], [["a film", "the plot"], ["it was", "a story"]] * 5,
         "which column holds the texts (--text COLUMN)? <u>, [/b]?"),
        (["text", "a", "b"], [["a film", n % 2, n % 3] for n in range(12)],
         "which column holds the labels (--label COLUMN)? a, b? Give the option, for there is no terminal here"),
        (["text", "n"], [["a film", n] for n in range(12)], "no column looks like labels"),
        (["good film", "good"], [[f"a film {n}", ["good", "bad"][n % 2]] for n in range(12)],
         "should name its columns, and seems to be an example: `good` stands there and below it"),
        (["text", "label"], [["a film", "same"]] * 6, "every label is 'same'"),
        (["text", "mood"], [["a film", "same"]] * 6, "column 'mood': every label is 'same'"),
        (["text", "label"], [["a film", "ab"[n % 2]] for n in range(3)], "there are 3 examples"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_without_a_terminal_is_said(
    tmp_path: Path, tiny_model: Path, names: list[str], rows: list[list[Any]], said: str
):
    data = write_csv(tmp_path / "data.csv", names, rows)
    answer = ntksweep("init", tmp_path / "mine.yaml", "--data", data, "--model", tiny_model)
    assert answer.status == 2
    assert said in answer.errors
    assert list(tmp_path.iterdir()) == [data]


def test_a_terminal_is_asked_for_what_is_not_given(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch):
    data = write_csv(tmp_path / "data.csv", ["text", "a", "b"], [["a film", "xy"[n % 2], n % 3] for n in range(20)])
    answers = iter([str(data), str(tiny_model), "text", "a"])
    monkeypatch.setattr(beginning, "_can_ask", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _: next(answers))
    answer = ntksweep("init", tmp_path / "mine.yaml")
    assert answer.status == 0, answer.errors
    assert "text is none of a, b" in answer.output
    assert "label: a\n" in (tmp_path / "mine.yaml").read_text()


def test_without_a_terminal_it_says_what_is_missing(tmp_path: Path, tiny_model: Path):
    answer = ntksweep("init", tmp_path / "mine.yaml")
    assert "--data and --model are missing" in answer.errors
    assert "--model is missing" in ntksweep("init", tmp_path / "mine.yaml", "--data", "a.csv").errors
    answer = ntksweep("init", tmp_path / "m.yaml", "--data", tmp_path / "a.csv", "--model", tiny_model)
    assert f"there is nothing at {tmp_path}/a.csv" in answer.errors
    answer = ntksweep("init", tmp_path / "m.yaml", "--data", tmp_path, "--model", tmp_path)
    assert "is not a model folder of transformers" in answer.errors
    assert "--full writes a file by itself; leave --data out" in ntksweep("init", "--full", "--data", "a.csv").errors


def test_a_model_without_a_vocabulary_is_refused_as_by_plan(tmp_path: Path, tiny_model: Path):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    for file in model.iterdir():
        if file.name != "config.json" and file.suffix != ".safetensors":
            file.unlink()
    data = write_csv(tmp_path / "data.csv", ["text", "label"], [[f"a film {n}", "ab"[n % 2]] for n in range(12)])
    answer = ntksweep("init", tmp_path / "mine.yaml", "--data", data, "--model", model)
    assert answer.status == 2
    assert "knows no word: its vocabulary is missing" in answer.errors
    assert not (tmp_path / "mine.yaml").exists()


@pytest.mark.parametrize("options", [["--full"], ["--profile"], ["--example", "quickstart"]])
def test_files_that_are_there_stay(tmp_path: Path, options: list[str]):
    path = tmp_path / "mine.yaml"
    path.write_text("mine")
    schema = tmp_path / "ntksweep.schema.json"
    schema.write_text("{}")
    assert "exists; name another file, or replace it with --force" in ntksweep("init", path, *options).errors
    assert path.read_text() == "mine"
    assert ntksweep("init", path, *options, "--force").status == 0
    assert path.read_text() != "mine"
    assert schema.read_text() == "{}"
    schema.unlink()
    if options == ["--full"]:
        ntksweep("init", path, *options, "--force")
        assert "is not of ntksweep" not in ntksweep("init", path, *options, "--force").output


@pytest.mark.parametrize("options", [[], ["--force"], ["--full", "--force"]])
@pytest.mark.parametrize("name", ["reviews.csv", "reviews.json"])
def test_no_spec_is_written_over_data(tmp_path: Path, name: str, options: list[str]):
    data = tmp_path / name
    data.write_text("text,label\nA film.,0\n")
    assert f"name the spec first: ntksweep init sweep.yaml --data {data}" in ntksweep("init", data, *options).errors
    assert data.read_text() == "text,label\nA film.,0\n"


def test_what_is_wrong_with_data_is_said_before_the_libraries_of_models_are_loaded(tmp_path: Path, tiny_model: Path):
    data = write_csv(tmp_path / "data.csv", ["text", "label"], [["a film", "same"]] * 6)
    command = [sys.executable, "-c", WITHOUT_LIBRARIES, "init", tmp_path / "mine.yaml", "--data", data]
    answer = subprocess.run([*command, "--model", tiny_model], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "every label is 'same'" in answer.stderr
    assert answer.returncode == 2


def test_examples_and_profiles_are_written_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    # The specs of the study stay in the checkout, beside the page that says what they ask, and their programs.
    apart = ("data", "study")
    examples = {path.stem: path for path in (ROOT / "examples").glob("**/*.yaml") if path.parent.name not in apart}
    assert set(example_names()) == set(examples)
    for name, path in examples.items():
        assert example_text(name) == path.read_text()
        assert is_profile(name) == (path.parent.name == "profiles")
    answer = ntksweep("init", "--example", "lp-ft")
    assert answer.output.splitlines() == [
        "lp-ft.yaml is the example lp-ft; then: ntksweep plan lp-ft.yaml",
        "model.path: data/minilm does not exist; set the key to the path of yours",
        "task.data: data/movies.parquet does not exist; set the key to the path of yours",
    ]
    assert "is the cluster profile gpu" in ntksweep("init", "--example", "gpu").output
    assert "did you mean `paper`?" in ntksweep("init", "--example", "papr").errors


def test_what_is_printed_and_what_is_written_say_nothing_twice(tmp_path: Path, tiny_model: Path):
    rows = [[f"{'very ' * (n % 4)}good {n}", ["bad", "good"][n % 2]] for n in range(20)]
    data = write_csv(tmp_path / "data.csv", ["text", "label"], rows)
    answer = ntksweep("init", tmp_path / "mine.yaml", "--data", data, "--model", tiny_model)
    said = answer.output + (tmp_path / "mine.yaml").read_text()
    for once in (
        "ntksweep plan",
        "ntksweep run",
        "ntksweep init --full",
        "never trained on",
        "held out",
        "to start from",
    ):
        assert said.count(once) <= 1, once
