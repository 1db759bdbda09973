"""The command: help, init, plan, run and doctor: what they print, what scripts read of it, exit statuses."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.cli.app import app
from orchestrator.cluster.profiles import read_profile
from orchestrator.engine.executors.inline import InlineExecutor
from orchestrator.errors import ExitCode
from orchestrator.store.journal import read_journals
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.version import VERSION
from tests.orchestrator.cli.answers import folder_of, strict_json
from tests.orchestrator.sweeps import make_sweep, ntksweep, results_of, write_spec
from tests.root import ROOT

COMMANDS = [
    "init", "schema", "plan", "run", "submit", "resume", "wait", "cancel", "logs", "status", "show", "select", "export",
    "report", "plot", "findings", "doctor",
]  # fmt: skip


# --- help


def test_the_commands_are_the_documented_ones():
    assert [command.name for command in app.registered_commands] == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_with_an_example(command: str):
    answer = ntksweep(command, "--help")
    assert answer.status == 0
    assert f"Example: ntksweep {command}" in answer.output


def test_the_help_of_the_whole_lists_commands_and_statuses():
    for arguments in ((), ("--help",)):
        text = " ".join(ntksweep(*arguments).output.split())
        assert all(command in text for command in COMMANDS)
        assert "Example: ntksweep run examples/quickstart.yaml" in text
        for code in ExitCode:
            assert f"{code.value} " in text[text.index("Exit status") :], code


def test_init_writes_a_profile_that_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert "submit SPEC --profile cluster.yaml" in ntksweep("init", "--profile").output
    assert read_profile(tmp_path / "cluster.yaml").time_limit == "4h"
    assert ntksweep("init", "--profile").status == ExitCode.WRONG_INPUT  # it exists


def test_the_version_is_told():
    assert ntksweep("--version").output == f"ntksweep {VERSION}\n"


@pytest.mark.parametrize("arguments", [["rum"], ["plan"], ["plan", "a", "b"], ["run", "x", "--workers", "0"]], ids=str)
def test_wrong_usage_has_the_status_of_wrong_input(arguments: list[str]):
    assert ntksweep(*arguments).status == ExitCode.WRONG_INPUT


def test_the_module_is_the_command_and_says_errors_without_a_traceback(tmp_path: Path):
    ran = subprocess.run(
        [sys.executable, "-m", "orchestrator", "plan", "none.yaml"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert ran.stderr == "error: there is no spec at none.yaml; `ntksweep init none.yaml` writes one to start from\n"


# --- init, plan


def test_init_writes_a_spec_that_plan_explains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    answer = ntksweep("init", "my-sweep.yaml", "--full")
    assert answer.status == 0
    assert answer.output == (
        "my-sweep.yaml is a spec to start from; with ntksweep.schema.json beside it, editors complete its keys\n"
        "next: `ntksweep plan my-sweep.yaml` says what it computes and how long that takes; `ntksweep run "
        "my-sweep.yaml` computes it\n"
    )
    assert (tmp_path / "ntksweep.schema.json").read_text() == ntksweep("schema").output
    assert yaml.safe_load((tmp_path / "my-sweep.yaml").read_text())["name"] == "my-sweep"
    planned = ntksweep("plan", "my-sweep.yaml")
    assert planned.status == 2
    assert "there is nothing at" in planned.errors
    assert "paths are relative to the folder of the spec" in planned.errors


@pytest.mark.parametrize(("file", "name"), [("my sweep.yaml", "my-sweep"), ("größe.yaml", "gr-e"), ("ü.yaml", "sweep")])
def test_init_makes_a_name_of_any_file_name(tmp_path: Path, file: str, name: str):
    assert ntksweep("init", tmp_path / file, "--full").status == 0
    assert yaml.safe_load((tmp_path / file).read_text())["name"] == name


def test_init_replaces_a_file_only_if_told(tmp_path: Path):
    path = tmp_path / "sweep.yaml"
    path.write_text("precious")
    answer = ntksweep("init", path, "--full")
    assert answer.status == 2
    assert "exists; name another file, or replace it with --force" in answer.errors
    assert path.read_text() == "precious"
    assert ntksweep("init", path, "--full", "--force").status == 0
    assert path.read_text() != "precious"


def test_plan_tells_cells_stages_and_cost_and_leaves_nothing(tmp_path: Path, tiny_model: Path):
    spec = make_sweep(tmp_path, model=tiny_model)
    answer = ntksweep("plan", spec)
    assert answer.status == 0
    assert "6 cells = 3 layer sets x 2 lambdas x 1 seed x 1 training-set size" in answer.output
    assert "lora_A of 4 groups have no gradient at the start and are left out" in " ".join(answer.output.split())
    for kind in ("dataset", "batching", "capture", "gram", "solve"):
        assert kind in answer.output
    assert f"results: {tmp_path / 'results'}" in answer.output
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(("kept", "is_said"), [(64, False), (65, True), (5000, True)])
def test_plan_says_that_the_model_takes_fewer_tokens_than_are_kept(
    tmp_path: Path, tiny_model: Path, kept: int, is_said: bool
):
    spec = make_sweep(tmp_path, {"task.max_length": kept}, model=tiny_model)
    said = (
        f"task.max_length: {kept} is more than the 64 tokens that the model takes: a text of more than 64 would not be "
        "cut, and its stage would fail; set task.max_length to 64 or less"
    )
    assert (said in ntksweep("plan", spec).output.splitlines()) == is_said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"values": [0.1, 10.0], "scale": "trace"}, "lambda 0.1 to 10, in units of trace/M"),
        ([0.5], "lambda 0.5, on the absolute scale"),
    ],
    ids=str,
)
def test_plan_and_show_say_the_scale_of_lambda(tmp_path: Path, tiny_model: Path, given: Any, said: str):
    spec = make_sweep(tmp_path, {"grid.lambdas": given}, model=tiny_model)
    assert said in ntksweep("plan", spec).output.splitlines()
    assert ntksweep("run", spec).status == 0
    cells = results_of(spec).cells.to_pandas()
    units = cells["trace"] / cells["kernel_size"]
    scale = said.partition(", ")[2]
    if "absolute" in scale:
        scale += f" (trace/M of the kernels: {units.min():.3g} to {units.max():.3g})"
    assert ntksweep("show", spec).output.splitlines()[2].endswith(f"; lambda {scale}")


def test_cancel_says_that_a_run_without_slurm_goes_on(finished: Path, tmp_path: Path):
    shutil.copytree(folder_of(finished), tmp_path / "results")
    assert ntksweep("cancel", tmp_path / "results").output == "cancelled 0 allocations\n"
    claims = ResultsFolder(tmp_path / "results").claims()
    claim = claims.take("0" * 64)
    assert claim is not None
    said = ntksweep("cancel", tmp_path / "results").output.splitlines()
    assert said[0] == "cancelled 0 allocations"
    assert said[1].startswith(f"a run that no Slurm job started goes on, by process {os.getpid()} on ")
    claims.release(claim)


def test_the_json_of_plan_has_what_the_table_has(tmp_path: Path, tiny_model: Path):
    facts = strict_json(ntksweep("plan", make_sweep(tmp_path, model=tiny_model), "--json").output)
    assert facts["cells"] == 6
    assert [layer_set["name"] for layer_set in facts["layer_sets"]] == ["layers:0", "layers:1", "layers:0-1"]
    assert [group["name"] for group in facts["groups"]] == ["0.query", "0.value", "1.query", "1.value", "head"]
    assert {stage["kind"]: stage["missing"] for stage in facts["stages"]} == {
        "dataset": 1, "batching": 1, "capture": 5, "gram": 12, "solve": 3,
    }  # fmt: skip
    assert facts["workers"] == 1
    assert facts["folder"] == str(tmp_path / "results")


# --- run


def test_run_ends_with_the_best_lambdas_and_where_the_results_are(tmp_path: Path, tiny_model: Path):
    answer = ntksweep("run", make_sweep(tmp_path, model=tiny_model))
    assert answer.status == 0
    for name in ("layers:0", "layers:1", "layers:0-1"):
        assert name in answer.output
    assert "majority baseline: accuracy 0." in answer.output
    assert f"6 of 6 cells in {tmp_path / 'results' / 'tables'}/cells" in answer.output
    assert f"`ntksweep report {tmp_path / 'results'}` makes a page of them" in answer.output
    assert "finished already" not in answer.output


def test_run_on_a_finished_sweep_says_so_and_computes_nothing(finished: Path, monkeypatch: pytest.MonkeyPatch):
    before = list(read_journals(folder_of(finished) / "journal"))

    def never(*_: object) -> None:
        raise AssertionError("a finished sweep computes nothing")

    monkeypatch.setattr(InlineExecutor, "__init__", never)
    answer = ntksweep("run", finished)
    assert answer.status == 0
    assert "the sweep was finished already; nothing to do" in answer.output
    assert "12 of 12 cells" in answer.output
    facts = strict_json(ntksweep("run", finished, "--json").output)
    assert (facts["cells"], facts["cells_in_tables"], facts["computed"]) == (12, 12, 0)
    assert list(read_journals(folder_of(finished) / "journal")) == before


def test_the_json_of_run_counts_what_was_computed(tmp_path: Path, tiny_model: Path):
    answer = ntksweep("run", make_sweep(tmp_path, model=tiny_model), "--json")
    facts = strict_json(answer.output)
    assert facts == {
        "cells": 6, "cells_in_tables": 6, "computed": 22, "blocked": 0, "failures": [],
        "folder": str(tmp_path / "results"),
    }  # fmt: skip


def test_run_takes_executor_and_workers_from_the_command(tmp_path: Path, tiny_model: Path):
    spec = make_sweep(tmp_path, {"compute.executor": "ray", "compute.workers": 3}, model=tiny_model)
    assert ntksweep("run", spec, "--executor", "inline", "--workers", "1").status == 0
    answer = ntksweep("run", spec, "--executor", "slurm")
    assert answer.status == 2
    assert "there is no executor `slurm`; give ray or inline" in answer.errors


def test_run_asks_which_side_to_keep_and_takes_it(tmp_path: Path, tiny_model: Path):
    spec = make_sweep(tmp_path, model=tiny_model)
    assert ntksweep("run", spec).status == 0
    write_spec(tmp_path, {"model.path": str(tiny_model), "adapter.rank": 1})
    refused = ntksweep("run", spec)
    assert refused.status == 2
    assert "adapter.rank: 2 in the folder, 1 now" in refused.errors
    stored = ntksweep("run", spec, "--on-change", "stored")
    assert "finished already" in stored.output
    assert "kept as it is in the folder (--on-change stored): adapter.rank: 2 in the folder, 1 now" in stored.errors
    given = ntksweep("run", spec, "--on-change", "given")
    assert given.status == 0
    assert results_of(spec).cells.to_pandas()["adapter_rank"].unique().tolist() == [1]


def test_an_interrupted_run_has_its_own_status_and_goes_on(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    spec = make_sweep(tmp_path, model=tiny_model)
    outcome = InlineExecutor.next_outcome
    calls = iter(range(100))

    def interrupted(self: InlineExecutor, timeout: float | None) -> Any:
        if next(calls) == 8:
            raise KeyboardInterrupt
        return outcome(self, timeout)

    with monkeypatch.context() as patch:
        patch.setattr(InlineExecutor, "next_outcome", interrupted)
        answer = ntksweep("run", spec)
    assert answer.status == 130
    assert "interrupted; finished stages are kept. Run the same command again to go on." in answer.errors
    unfinished = ntksweep("status", tmp_path / "results", "--json")
    assert unfinished.status == ExitCode.UNFINISHED
    assert sum(kind["finished"] for kind in strict_json(unfinished.output)["kinds"]) == 8
    assert strict_json(ntksweep("run", spec, "--json").output)["computed"] == 22 - 8
    assert ntksweep("status", tmp_path / "results").status == 0


def test_failed_stages_are_told_and_run_again_when_mended(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    spec = make_sweep(tmp_path, model=tiny_model)

    def broken(*_: object) -> None:
        raise RuntimeError("a solver with a bug")

    with monkeypatch.context() as patch:
        patch.setattr("orchestrator.stages.solve.compute.compute", broken)
        answer = ntksweep("run", spec)
        facts = strict_json(ntksweep("run", spec, "--json").output)
    assert answer.status == ExitCode.FAILED_STAGES
    assert "failed (code): solve" in answer.output
    assert "a solver with a bug" in answer.output
    assert "3 stages failed and 0 wait for them; when the cause is corrected, run the same command again" in " ".join(
        answer.output.split()
    )
    assert [failure["failure"] for failure in facts["failures"]] == ["code"] * 3
    status = ntksweep("status", spec)
    assert status.status == ExitCode.FAILED_STAGES
    assert "a solver with a bug" in status.output
    assert ntksweep("run", spec).status == 0
    assert ntksweep("status", spec).status == 0


# --- doctor


def test_the_json_of_doctor_has_every_check(tmp_path: Path):
    checks = strict_json(ntksweep("doctor", "--folder", tmp_path, "--json").output)
    assert {"feature", "name", "ok", "required", "found", "advice"} == set(checks[0])
    assert {"torch", "ray", "processors", "polars"} <= {check["name"] for check in checks}


def test_no_option_is_cut_off_in_the_help_of_a_narrow_terminal():
    program = "import sys; from orchestrator.cli import main; sys.argv = ['ntksweep', 'export', '--help']; main()"
    narrow = os.environ | {"COLUMNS": "60", "NO_COLOR": "1"}
    said = subprocess.run(
        [sys.executable, "-c", program], env=narrow, capture_output=True, text=True, check=True
    ).stdout
    assert all(f"  {option} " in said for option in ("--trust-remote-code", "-o, --output <path>"))
    assert max(map(len, said.splitlines())) <= 60
    assert "…" not in said
