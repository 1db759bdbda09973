"""Paths that cannot be used, with every command that takes one: one message with cause and fix, and nothing else."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ntksweep as ntksweep_api
from orchestrator.errors import ExitCode, SweepError
from orchestrator.sweep.folder import ResultsFolder
from slurm.profile.profile import Profile
from slurm.query.shared_folder import folder_faults
from tests.orchestrator.sweeps import Answer, make_sweep, ntksweep, run_spec, write_spec

LONG_NAME, LONG_PATH = "n" * 300, "/".join(["n" * 200] * 30)
NOBODY = 65534

SAID = {
    # what the message says of a path, as a folder of results, as a file to read, as a file to write
    "file": ("is not a folder", "is empty or not a mapping", None),
    "file/x": ("is not a folder", "cannot be read: Not a directory", "something else lies there"),
    "dangling": ("is not a folder", "there is no ", "its folder does not exist"),
    "dangling/x": ("is not a folder", "there is no ", "something else lies there"),
    "loop": ("is not a folder", "Too many levels of symbolic links", "something else lies there"),
    "pipe": ("is not a folder", "it is a device or a pipe", None),
    "/dev/null": ("is not a folder", "it is a device or a pipe", None),
    "/proc/x": (None, "there is no ", "its folder does not exist"),
    "folder": (None, "it is a folder", "something else lies there"),
    LONG_NAME: ("has 300 bytes",) * 3,
    LONG_PATH: ("the path has 6029 bytes",) * 3,
    "~nosuchuser/x": ("a user that this machine does not know",) * 3,
    "nul\0": ("null",) * 3,
}

LOOKS = ("status", "show", "select", "report", "plot", "findings", "export", "logs", "wait", "cancel", "resume")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with a finished sweep `results`, its spec `sweep.yaml`, and what is no place for results."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(tiny_model, folder / "model")
    run_spec(make_sweep(folder, {"grid.layer_sets": ["all_layers"]}, model=folder / "model"))
    (folder / "file").touch()
    (folder / "folder").mkdir()
    (folder / "dangling").symlink_to(folder / "nowhere/x")
    (folder / "loop").symlink_to(folder / "loop")
    os.mkfifo(folder / "pipe")
    return folder


@pytest.fixture(autouse=True)
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "500")


def told(answer: Answer, said: str) -> None:
    """Check that a command ended with one message."""
    assert answer.status in (ExitCode.WRONG_INPUT, ExitCode.STORAGE)
    assert said in answer.errors
    assert "Traceback" not in answer.errors
    assert answer.errors.count("error: ") == 1 or "null" in said  # which the parser of arguments says


@pytest.mark.parametrize("path", SAID, ids=lambda path: path[:12])
def test_a_path_that_cannot_be_used_is_one_message_with_every_command(path: str, place: Path):
    as_results, as_input, as_output = SAID[path]
    for command in LOOKS:
        options = ["-o", "out.csv"] if command in ("report", "plot", "findings", "export") else []
        said = "is empty or not a mapping" if path == "file" else as_results or "there are no results at"
        told(ntksweep(command, path, *options), said)
    told(ntksweep("plan", path), as_input)
    told(ntksweep("run", path), as_input)
    told(ntksweep("submit", "sweep.yaml", "--profile", path), as_input)
    if as_output is None:
        return
    told(ntksweep("export", "results", "-o", path, "--format", "csv"), as_output)
    told(ntksweep("export", "results", "-o", path, "--format", "parquet"), as_output)
    told(ntksweep("init", path, "--full", "--force"), as_output)
    told(ntksweep("init", path, "--profile", "--force"), as_output)


@pytest.mark.parametrize("path", ["file", "file/x", "dangling", "dangling/x", "loop", "pipe", "/dev/null"])
def test_plan_and_run_refuse_a_place_that_is_none_for_results(path: str, place: Path):
    spec = write_spec(place, {"results.folder": path}, name="elsewhere.yaml")
    answers = {ntksweep(command, spec).message for command in ("plan", "run")}
    (message,) = answers
    assert message.startswith(f"error: no results can be at {Path(path).absolute()}, for ")
    assert message.endswith("is not a folder; name another one, in a spec as results.folder\n")


@pytest.mark.parametrize("path", ["file", "dangling", "loop", "/proc/x"])
def test_findings_go_where_a_folder_can_be(path: str, finished_training: Path):
    told(ntksweep("findings", finished_training, "-o", path), "cannot be written")


@pytest.mark.parametrize("path", ["folder", "dangling", "loop", "pipe", "/dev/null", "/proc/x"])
def test_a_report_replaces_nothing_but_a_file(path: str, finished_training: Path):
    before = Path(path).lstat() if path != "/proc/x" else None
    told(ntksweep("report", finished_training, "-o", path, "--force"), "cannot be written")
    assert before is None or Path(path).lstat().st_ino == before.st_ino


@pytest.fixture(scope="module")
def finished_training(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The results of a sweep that was trained, as briefly as can be."""
    training = {"learning_rate": 0.05, "epochs": 1, "batch_size": 4, "num_evaluations": 1, "kernel_examples": 0}
    spec = make_sweep(
        tmp_path_factory.mktemp("trained"), {"finetune": training, "grid.layer_sets": ["all_layers"]}, model=tiny_model
    )
    run_spec(spec)
    return spec.parent / "results"


def test_a_tilde_that_no_shell_filled_in_is_the_home_folder(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(place / "folder"))
    assert ntksweep("export", "results", "--output=~/cells.csv").status == 0
    assert (place / "folder/cells.csv").is_file()
    (place / "~").mkdir()  # what lies here is what was meant
    assert ntksweep("export", "results", "--output=~/cells.csv", "--force").status == 0
    (place / "folder/cells.csv").unlink()
    shutil.rmtree(place / "~")


@pytest.mark.parametrize("path", ["~nosuchuser/x", LONG_NAME, "nul\0", os.fsdecode(b"caf\xe9")])
def test_a_path_that_no_file_can_have_is_one_message_in_programs_too(path: str, place: Path, tmp_path: Path):
    looks = [
        lambda: ntksweep_api.load(path),
        lambda: ntksweep_api.plan(path),
        lambda: ntksweep_api.load(place / "results").plot.lambda_path().save(path),
        lambda: ntksweep_api.load(place / "results").save_adapter("a", path),
    ]
    for look in looks:
        with pytest.raises(SweepError, match=r"not know|300 bytes|null|not text in UTF-8"):
            look()


@pytest.mark.parametrize("inside", [True, False])
def test_a_folder_whose_name_is_no_text_is_told(inside: bool, place: Path, tmp_path: Path):
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    shutil.copytree(place, odd, ignore=shutil.ignore_patterns("pipe"), symlinks=True)
    changes = {
        "results.folder": None,
        "model.path": "model",
        "task.data": "data.parquet",
        "grid.layer_sets": ["all_layers"],
    }
    write_spec(odd, changes)
    with contextlib.chdir(odd if inside else place):
        spec = Path("sweep.yaml") if inside else odd / "sweep.yaml"
        for command, path in (("plan", spec), ("run", spec), ("status", spec.parent / "results")):
            answer = ntksweep(command, path)
            assert answer.status == ExitCode.WRONG_INPUT
            assert answer.errors.count("bytes that are not text in UTF-8") == 1
            answer.errors.encode()


# --- folders of others


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Act as a user who owns nothing, where tests are run by root, who may do all."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def of_others(place: Path) -> Iterator[Callable[[int], Path]]:
    """Return a function that makes a copy of the results whose folder has a mode and is somebody else's."""
    above = Path(tempfile.mkdtemp())  # pytest's own folders are closed to others
    above.chmod(0o755)
    folder = shutil.copytree(place / "results", above / "results")

    def with_mode(mode: int) -> Path:
        folder.chmod(mode if os.geteuid() == 0 else mode >> 6 & mode)
        return folder

    yield with_mode
    folder.chmod(0o700)
    shutil.rmtree(above)


@pytest.mark.parametrize("below", ["", "x"])
def test_a_folder_that_others_closed_says_so(of_others: Callable[[int], Path], below: str, place: Path):
    folder = of_others(0o700 if os.geteuid() == 0 else 0)
    for command in ("status", "show", "select", "logs", "cancel", "wait", "export"):
        options = ["-o", "/nowhere/out.csv", "--force"] if command == "export" else []
        ntksweep(command, place / "results", *options)  # loads what only its own user may read here
        with nobody():
            answer = ntksweep(command, folder / below, *options)
        told(answer, f"{folder / below} cannot be read (Permission denied); ask its owner to let you read it")


def test_a_folder_that_cannot_be_written_is_told_by_plan_where_something_is_missing(
    of_others: Callable[[int], Path], place: Path
):
    folder = of_others(0o555)
    unfinished = write_spec(place, {"results.folder": str(folder / "new")}, name="unfinished.yaml")
    unfinished.chmod(0o644)
    ntksweep("plan", unfinished)
    with pytest.MonkeyPatch.context() as patch:
        if os.geteuid() == 0:  # who may write everywhere
            patch.setattr(os, "access", lambda path, mode: Path(path) != folder)
        told(ntksweep("plan", unfinished), f"{folder} cannot be written by you, and results would go to {folder}/new")
    archived = write_spec(place, {"results.folder": str(folder), "grid.layer_sets": ["all_layers"]}, name="done.yaml")
    assert ntksweep("plan", archived).status == 0


# --- what Slurm would read in a path


@pytest.mark.parametrize("name", ["100%", "a%jb", "a\\b", "a\nb", "a\x1b[31m"])
def test_a_results_folder_that_slurm_would_read_otherwise_is_not_submitted(name: str, tmp_path: Path):
    profile = Profile.model_validate({"memory": "2G", "time_limit": "1h", "shared_scratch": [str(tmp_path)]})
    (fault,) = folder_faults(profile, ResultsFolder(tmp_path / name).root)
    assert "in Slurm's names of logs: %" in fault
    assert "set the spec's results.folder to a path without it" in fault
    assert "\n" not in fault
    assert list(folder_faults(profile, tmp_path / "a b'c")) == []


def test_a_misspelled_path_is_told_with_the_nearest_spec_or_results(tmp_path: Path, tiny_model: Path):
    spec = make_sweep(tmp_path, model=tiny_model)
    (tmp_path / "sweeps.txt").write_text("notes")
    (tmp_path / "result").mkdir()
    assert f"did you mean {spec}?" in ntksweep("plan", tmp_path / "sweeep.yaml").errors
    run_spec(spec)
    assert f"did you mean {tmp_path / 'results'}?" in ntksweep("status", tmp_path / "reslts").errors
    assert "did you mean" not in ntksweep("status", tmp_path / "other").errors


def test_a_sweep_that_would_begin_anew_in_another_folder_is_told_so(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    spec = make_sweep(tmp_path / "a", {"results.folder": None}, model=tiny_model)
    monkeypatch.chdir(tmp_path / "a")
    assert "begin anew" not in ntksweep("run", spec).errors
    monkeypatch.chdir(tmp_path)
    said = "this sweep has results in a/results/tiny, and would begin anew in results/tiny, which starts from"
    assert said in " ".join(ntksweep("plan", spec).output.split())
    answer = ntksweep("run", spec)
    assert said in " ".join(answer.errors.split())
    assert "begin anew" not in ntksweep("run", spec).errors
