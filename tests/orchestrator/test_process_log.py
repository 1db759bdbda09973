"""The log of each process in the results folder, and what -v shows of it on the terminal."""

import logging
import os
import re
import resource
import signal
import warnings
from pathlib import Path

import numpy as np
import pytest

from orchestrator import process_log as logs
from orchestrator.errors import ExitCode, SourceError
from orchestrator.process_log import ProcessLog, at_stage, own_process, process_log
from orchestrator.store.files import host_name
from tests.orchestrator.sweeps import Answer, make_sweep, ntksweep

OWN = logging.getLogger("orchestrator.some.module")
FOREIGN = logging.getLogger("somebody.else")
HERE = re.escape(host_name())

LINE = re.compile(rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{{3}} [A-Z]+ {HERE}:\d+ (-|\w+/[0-9a-f]{{24}}) [\w.]+: .+")
"""A line of a log file: time, level, process, stage, module, message."""

SHOWN = re.compile(r"^\d\d:\d\d:\d\d (INFO|DEBUG|WARNING) [\w.]+: ", re.MULTILINE)
"""The beginning of a line of the log on the terminal."""


def written(folder: Path) -> str:
    """Return what the only log file of a folder holds."""
    (path,) = folder.iterdir()
    return path.read_text()


# --- one process


def test_a_line_says_when_how_grave_which_process_which_stage_and_which_module(tmp_path: Path) -> None:
    with own_process(), process_log(tmp_path / "logs"):
        OWN.debug("between stages")
        with at_stage("solve/" + 24 * "a"):
            OWN.info("in a stage")
        OWN.info("after it")
    first, second, third = written(tmp_path / "logs").splitlines()
    assert all(LINE.fullmatch(line) for line in (first, second, third))
    assert f" DEBUG {host_name()}:{os.getpid()} - orchestrator.some.module: between stages" in first
    assert f" {os.getpid()} solve/" in second.replace(":", " ")
    assert third.endswith(" - orchestrator.some.module: after it")


def test_of_other_libraries_the_file_has_warnings_and_the_terminal_no_more_than_before(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    apart = logging.getLogger("transformers")
    before = (apart.level, apart.propagate, [(each, each.level) for each in apart.handlers])
    apart.setLevel(logging.ERROR)
    apart.propagate = False
    handler = logging.StreamHandler()
    apart.addHandler(handler)
    try:
        with own_process(), process_log(tmp_path / "logs"), warnings.catch_warnings():
            warnings.simplefilter("always")
            FOREIGN.info("chatter")
            FOREIGN.warning("a logger's warning")
            logging.getLogger("transformers.some").warning("warned apart")
            logging.getLogger("transformers.some").error("an error apart")
            warnings.warn("one by the warnings module", UserWarning, stacklevel=1)
        assert (apart.level, handler.level) == (logging.ERROR, logging.NOTSET)
    finally:
        apart.removeHandler(handler)
        apart.setLevel(before[0])
        apart.propagate = before[1]
    found = written(tmp_path / "logs")
    assert "chatter" not in found
    for said in ("a logger's warning", "warned apart", "an error apart", "UserWarning: one by the warnings module"):
        assert found.count(said) >= 1, said
    assert capfd.readouterr().err == "an error apart\n"
    assert before == (apart.level, apart.propagate, [(each, each.level) for each in apart.handlers])


def test_a_program_that_imports_the_packages_keeps_its_levels_and_its_warnings(tmp_path: Path) -> None:
    show = warnings.showwarning
    with process_log(tmp_path / "logs"):
        OWN.info("the program did not ask for it")
        OWN.warning("a warning")
        assert warnings.showwarning is show
    assert "a warning" in written(tmp_path / "logs")
    assert "did not ask" not in written(tmp_path / "logs")
    assert logging.getLogger("orchestrator").level == logging.NOTSET


def test_control_characters_of_texts_are_escaped(tmp_path: Path) -> None:
    with process_log(tmp_path / "logs"):
        OWN.warning("red \x1b[31m text\nsecond line")
    assert written(tmp_path / "logs").endswith("red \\x1b[31m text\nsecond line\n")


def test_there_is_no_file_before_the_first_line_and_no_folder_comes_back(tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    with process_log(results / "logs"):
        assert not list(results.iterdir())
        results.rmdir()
        OWN.warning("where to?")
        OWN.warning("again")
    assert not results.exists()


def test_a_log_that_cannot_be_written_is_given_up_without_a_word(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").write_text("no folder")
    with process_log(tmp_path / "logs"):
        OWN.warning("nobody reads it")
    assert capfd.readouterr() == ("", "")


def test_a_log_on_a_disk_that_fills_up_raises_nothing(tmp_path: Path) -> None:
    if (child := os.fork()) == 0:
        status = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
            with process_log(tmp_path):
                for number in range(20):
                    OWN.warning("line %d", number)
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert len(written(tmp_path)) == 500


def test_a_fork_writes_to_a_file_of_its_own(tmp_path: Path) -> None:
    with process_log(tmp_path):
        OWN.warning("the parent")
        if (child := os.fork()) == 0:
            OWN.warning("the child")
            os._exit(0)
        os.waitpid(child, 0)
        OWN.warning("the parent again")
    found = {path.name.split("-")[-2]: path.read_text() for path in tmp_path.iterdir()}
    assert {process: text.count("\n") for process, text in found.items()} == {str(os.getpid()): 2, str(child): 1}
    assert f":{child} - orchestrator.some.module: the child" in found[str(child)]


def test_a_long_log_goes_on_in_a_new_file_and_keeps_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LARGEST_BYTES", 1000)
    with process_log(tmp_path):
        for number in range(40):
            OWN.warning("line %d", number)
    sizes = {path.suffix: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes.keys() == {".log", ".1"}
    assert max(sizes.values()) <= 1000


def test_a_process_of_a_job_says_so_in_the_name_of_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    for task, job in ((None, "4711"), ("3", "4700_3")):
        if task:
            monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "4700")
            monkeypatch.setenv("SLURM_ARRAY_TASK_ID", task)
        with process_log(tmp_path / job):
            OWN.warning("a line")
        (path,) = (tmp_path / job).iterdir()
        assert re.fullmatch(rf"{job}_{HERE}-{os.getpid()}-[0-9a-f]+\.log", path.name)
        assert logs.job_of(path.name) == job
    assert logs.job_of("n1-394-18ebfae05643465b.log") is None


# --- the command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    return make_sweep(tmp_path_factory.mktemp("logged"), model=tiny_model).parent


@pytest.fixture(scope="module")
def failed(folder: Path) -> Answer:
    """A run with -v whose solve stages fail by an error of NumPy."""

    def broken(*_: object) -> None:
        try:
            np.linalg.cholesky(-np.eye(2))
        except np.linalg.LinAlgError as error:
            raise SourceError("the kernel is no kernel; look at the data") from error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("orchestrator.stages.solve.compute.compute", broken)
        return ntksweep("run", folder / "sweep.yaml", "-v")


def test_the_file_has_the_traceback_of_a_failed_stage_and_the_terminal_its_message(
    folder: Path, failed: Answer
) -> None:
    assert failed.status == ExitCode.FAILED_STAGES
    assert "the kernel is no kernel; look at the data" in failed.output
    assert "LinAlgError" not in failed.output + failed.errors
    assert "WARNING orchestrator.stages.context.failures: input: the kernel is no kernel" in failed.errors
    found = written(folder / "results/logs")
    begun = re.search(r"WARNING .* solve/[0-9a-f]{24} orchestrator\.\S+: input: the kernel .*\nTraceback", found)
    assert begun is not None
    assert "numpy.linalg.LinAlgError" in found[begun.end() :]
    assert "SourceError: the kernel is no kernel" in found[begun.end() :]


def test_the_file_says_what_ran_what_was_loaded_and_what_transformers_warned_of(folder: Path, failed: Answer) -> None:
    found = written(folder / "results/logs")
    for said in (
        r"ntksweep \S+ \(code \w{12}, numerics \w{12}\) at .*, torch 2",
        r"model with \d+ groups in float64 on cpu",
        "DEBUG",
    ):
        assert re.search(said, found), said
    assert re.search(r"WARNING .* transformers\.\S+: .*LOAD REPORT", found)  # of the head, which is drawn
    assert "LOAD REPORT" not in failed.output


def test_v_shows_what_is_decided_and_vv_more(folder: Path, failed: Answer) -> None:
    assert set(SHOWN.findall(failed.errors)) == {"INFO", "WARNING"}
    assert "INFO orchestrator.engine.run: 22 of 22 stages are missing" in failed.errors
    assert not SHOWN.search(failed.output)
    for arguments in (["-vv", "run"], ["run", "-vv"], ["run", "-v", "--verbose"]):
        answer = ntksweep(*arguments, folder / "sweep.yaml")
        if arguments[0] == "-vv":  # the failed stages are computed
            assert "DEBUG orchestrator.engine.worker.execute: solve of" in answer.errors
        assert answer.status == 0
        assert "INFO orchestrator.sweep.sources:" in answer.errors


def test_without_v_nothing_is_shown_and_a_finished_sweep_gets_no_file(folder: Path, failed: Answer) -> None:
    spec = folder / "sweep.yaml"
    assert ntksweep("run", spec).status == 0
    before = sorted((folder / "results/logs").iterdir())
    answers = [ntksweep(*each) for each in (("run", spec), ("plan", spec), ("status", spec), ("--help", "-v"))]
    assert not any(SHOWN.search(each.output + each.errors) for each in answers)
    assert sorted((folder / "results/logs").iterdir()) == before


def test_the_logs_of_processes_are_shown_by_the_command(folder: Path, failed: Answer) -> None:
    answer = ntksweep("logs", folder / "results", "--lines", "3")
    assert answer.status == 0
    for path in (folder / "results/logs").iterdir():
        assert f"==> {path} <==\n" in answer.output
    assert "collected in" in answer.output


def test_a_log_handler_is_gone_when_its_time_is_over(tmp_path: Path) -> None:
    with own_process(), process_log(tmp_path):
        pass
    ntksweep("-v", "status", tmp_path)
    left = [each for name in (None, *logs.APART) for each in logging.getLogger(name).handlers]
    assert not [each for each in left if isinstance(each, ProcessLog) or type(each).__name__ == "_TerminalLog"]
    assert all(logging.getLogger(name).level == logging.NOTSET for name in logs.PACKAGES)
