"""Commands that only read: in a folder of somebody else they follow no link, and load no model and no pickle."""

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from finetune.model.weight_files import are_pickled
from finetune.settings import ModelSettings
from orchestrator.cluster import submitting
from orchestrator.cluster.records import Submission, read_submissions, write_submission
from orchestrator.errors import ExitCode, ResultsError
from orchestrator.results.loading import load
from orchestrator.store.sealed import sealed, unsealed
from orchestrator.sweep.folder import ResultsFolder
from slurm.profile.profile import Profile
from tests.opened import Opened
from tests.orchestrator.sweeps import make_sweep, ntksweep, run_spec
from tests.root import ROOT

CHANGES = {
    # beyond the parameters of any set, so that kernels are solved from blocks, which select needs
    "adapter.rank": 3,
    "kernel.eigenvectors": True,
    "grid.layer_sets": [{"subsets": 2}],
    "finetune": {"learning_rate": 0.05, "epochs": 1, "batch_size": 4, "num_evaluations": 1, "kernel_examples": 4},
    "results.predictions": True,
}


class Evil:
    """An object that writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The results folder of a trained sweep, with what its allocations left; its model and its data are gone."""
    folder = tmp_path_factory.mktemp("trained")
    spec = make_sweep(folder, CHANGES, model=tiny_model)
    shutil.copytree(tiny_model, folder / "model")
    spec.write_text(spec.read_text().replace(str(tiny_model), "model"))
    run_spec(spec)
    results = ResultsFolder(folder / "results")
    profile = Profile.model_validate({"memory": "2G", "time_limit": "1h", "setup": ["rm -r ~"], "modules": ["cuda"]})
    submission = Submission("5ab1", "tiny", (1,), profile.model_dump(mode="json"), accounting=False, jobs=("12",))
    write_submission(results, submission)
    jobs = results.logs / "slurm/5ab1"
    (jobs / "12_nodes").mkdir(parents=True)
    for name in ("12_0_log.out", "12_0_log.err", "12_nodes/ray-n1.log"):
        (jobs / name).write_text("a line\n")
    (jobs / "12_submitted.pkl").write_bytes(pickle.dumps(Evil(folder / "unpickled")))
    (results.root / "claims/0123.1").write_text("{}")
    (results.root / "refused").mkdir(exist_ok=True)
    (results.root / "artifacts/damaged/solve").mkdir(parents=True)
    shutil.rmtree(folder / "model")
    (folder / "data.parquet").unlink()
    return results.root


@pytest.fixture(scope="module")
def answers(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the effects of the commands in a process of their own."""
    folders = [tmp_path_factory.mktemp(name) for name in ("written", "outside")]
    cell = load(trained).cells.to_arrow(["cell_id"])["cell_id"][0].as_py()
    command = [sys.executable, "-m", "tests.orchestrator.read_only", str(trained), cell, *map(str, folders)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def test_commands_that_read_need_neither_model_nor_data(answers: dict[str, Any]):
    said = {command: (each["status"], each["said"]) for command, each in answers["plain"].items()}
    assert [each for each in said.items() if each[1][0] != 0] == []
    assert "a line" in said["logs"][1]
    assert "ray-n1.log" in said["logs --job 12"][1]
    assert "no longer at" in said["select --greedy 1"][1]  # why there are no baselines by weights


def test_commands_that_read_load_no_library_that_loads_models_and_no_pickle(answers: dict[str, Any], trained: Path):
    assert answers["unpickled"] == []
    assert answers["modules"] == []
    assert not (trained.parent / "unpickled").exists()
    # choosing greedily computes kernels' spectra
    assert {command: each["loaded"] for command, each in answers["plain"].items() if each["loaded"]}.keys() <= {
        "select --greedy 1"
    }


def test_commands_that_read_follow_no_link_out_of_the_folder(answers: dict[str, Any]):
    assert answers["linked"] == []


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """A copy of the folder that a test may change."""
    return shutil.copytree(trained, tmp_path / "results")


def test_a_folder_that_is_a_link_is_named(copy: Path, tmp_path: Path):
    (copy / "tables").rename(tmp_path / "elsewhere")
    (copy / "tables").symlink_to(tmp_path / "elsewhere")
    for command in (["status"], ["show"], ["select"], ["logs"], ["export", "-o", str(tmp_path / "x.csv")]):
        answer = ntksweep(command[0], copy, *command[1:])
        assert answer.status == ExitCode.WRONG_INPUT
        assert answer.errors.startswith(f"error: {copy}/tables is a link, and ntksweep follows none within a results")
    with pytest.raises(ResultsError, match="is a link"):
        load(copy)


def test_the_results_folder_itself_may_be_a_link_and_so_may_what_is_not_part_of_it(copy: Path, tmp_path: Path):
    (tmp_path / "link").symlink_to(copy)
    (copy / "notes").symlink_to(tmp_path)
    assert ntksweep("status", tmp_path / "link").status == 0


@pytest.mark.parametrize("name", ["spec.yaml", "plan.json"])
def test_a_file_of_the_folder_that_is_a_link_is_not_read(copy: Path, tmp_path: Path, name: str):
    (copy / name).rename(tmp_path / name)
    (copy / name).symlink_to(tmp_path / name)
    answer = ntksweep("status", copy)
    if name == "spec.yaml":
        assert answer.status == ExitCode.WRONG_INPUT
        assert "cannot be read (it is a link, and no link is followed there" in answer.errors
    else:  # planned anew
        assert answer.status == 0


LOOKS = [["status"], ["select", "--greedy", "1"], ["logs", "--cell", "x"]]


@pytest.mark.parametrize("command", LOOKS, ids=" ".join)
@pytest.mark.parametrize("spoil", ["gone", "damaged", "another"])
def test_without_a_kept_survey_a_command_says_so_and_loads_no_model(copy: Path, command: list[str], spoil: str):
    (copy / "plan.json").unlink()
    (survey,) = (copy / "artifacts/survey").iterdir()
    if spoil == "gone":
        survey.unlink()
    elif spoil == "damaged":
        survey.write_bytes(survey.read_bytes()[:-9])
    else:
        survey.write_bytes(sealed({**_record(survey), "facts": {"groups": [{}]}}))
    answer = ntksweep(command[0], copy, *command[1:])
    assert answer.status == ExitCode.WRONG_INPUT
    assert f"is not at {survey}, or is damaged" in answer.errors
    assert "`ntksweep run SPEC`" in answer.errors
    assert len(answer.errors.strip().splitlines()) == 1


def _record(path: Path) -> dict[str, Any]:
    record = unsealed(path.read_bytes())
    return {key: value for key, value in record.items() if key not in ("algorithm", "checksum")}


def test_no_name_in_a_file_of_the_folder_leads_out_of_it(copy: Path, tmp_path: Path):
    outside = tmp_path / "outside"
    shutil.copytree(copy / "tables/cells", outside / "cells")
    (outside / "12_0_log.err").write_text("secret")
    (outside / "0").mkdir()
    out = "../../../outside"
    manifest = unsealed((copy / "tables/manifest.json").read_bytes())
    manifest["tables"][f"{out[3:]}/cells"] = manifest["tables"]["cells"]
    (copy / "tables/manifest.json").write_bytes(sealed(manifest))
    plan = unsealed((copy / "plan.json").read_bytes())
    plan["stages"][out[3:]] = ["0"]
    (copy / "plan.json").write_bytes(sealed(plan))
    for changes in ({"submission_id": out}, {"jobs": ["--help"]}, {"jobs": ["1,2"]}, {"sweep": "a,b"}, {"sizes": "x"}):
        record = json.loads((copy / "submissions/5ab1.json").read_text()) | changes
        (copy / "submissions/5ab2.json").write_text(json.dumps(record))
        assert [each.submission_id for each in read_submissions(ResultsFolder(copy))] == ["5ab1"]
    opened = Opened(outside)
    for command in (["status", "--verify"], ["show"], ["logs"], ["logs", "--job", "../../../../outside/12"]):
        answer = ntksweep(command[0], copy, *command[1:])
        assert "Traceback" not in answer.errors
        assert "secret" not in answer.output
    assert opened.taken() == []
    opened.close()


def test_weights_that_are_pickled_are_no_baseline(copy: Path, tmp_path: Path, tiny_model: Path):
    pickled = shutil.copytree(tiny_model, tmp_path / "model")
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    settings = ModelSettings(path=str(pickled))
    assert are_pickled(settings)
    assert not are_pickled(ModelSettings(path=str(tiny_model)))


# --- the profile that a results folder keeps


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """An offer of a submission, as there is no cluster here."""
    found: list[Any] = []
    monkeypatch.setattr(submitting, "prepare", lambda *arguments: found.append(arguments) or None)
    monkeypatch.setattr("orchestrator.cli.clusters._offer", lambda *_, **options: found.append(options))
    return found


@pytest.fixture
def unfinished(copy: Path, trained: Path) -> Path:
    """A copy that lacks a stage."""
    next((copy / "artifacts/compare").glob("*.json")).unlink()
    return copy


def test_resume_shows_the_commands_of_a_profile_that_the_folder_keeps_before_it_asks(
    unfinished: Path, offered: list[Any]
):
    answer = ntksweep("resume", unfinished)
    assert answer.status == 0, answer.errors
    assert "jobs run these lines of it as you:\n  modules: cuda\n  setup: rm -r ~\n" in answer.output
    assert offered[-1]["yes"] is False


def test_yes_alone_does_not_run_the_commands_of_a_profile_that_the_folder_keeps(
    unfinished: Path, offered: list[Any], tmp_path: Path
):
    answer = ntksweep("resume", unfinished, "--yes")
    assert answer.status == ExitCode.WRONG_INPUT
    assert "setup: rm -r ~" in answer.errors
    assert "--trust-profile" in answer.errors
    assert not offered
    assert ntksweep("resume", unfinished, "--yes", "--trust-profile").status == 0
    assert offered.pop()["yes"] is True
    own = tmp_path / "own.yaml"
    own.write_text("memory: 2G\ntime_limit: 1h\nsetup: [echo mine]\n")
    assert ntksweep("resume", unfinished, "--yes", "--profile", own).status == 0
    assert offered.pop()["yes"] is True


def test_a_profile_without_commands_needs_no_further_word(unfinished: Path, offered: list[Any]):
    path = unfinished / "submissions/5ab1.json"
    record = json.loads(path.read_text())
    record["profile"] |= {"setup": [], "modules": []}
    path.write_text(json.dumps(record))
    assert ntksweep("resume", unfinished, "--yes").status == 0
    assert offered
    record["profile"] = {"memory": "none"}
    path.write_text(json.dumps(record))
    answer = ntksweep("resume", unfinished, "--yes")
    assert "holds no profile that this version reads; name one with --profile" in answer.errors


def test_whatever_a_profile_has_run_is_shown():
    profile = Profile.model_validate(
        {"memory": "2G", "time_limit": "1h", "container": "apptainer exec x", "python": "/p", "sbatch": {"nice": 5}}
    )
    assert submitting.commands_of(profile) == ["container: apptainer exec x", "python: /p", "sbatch: nice=5"]
    assert submitting.commands_of(Profile.model_validate({"memory": "2G", "time_limit": "1h"})) == []
