"""Code that comes with a model: it runs where the command line allows it, and nowhere else."""

import json
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from orchestrator.cli.clusters import _print_offer
from orchestrator.cli.terminal import Terminal
from orchestrator.cluster import driver, submitting
from orchestrator.cluster.records import read_submissions, write_submission
from orchestrator.engine.run import resolve
from orchestrator.errors import ExitCode, UntrustedCodeError
from orchestrator.plan.plan import make_plan
from orchestrator.spec import read_spec
from orchestrator.sweep.choices import variants
from orchestrator.sweep.folder import ResultsFolder, Sweep
from orchestrator.sweep.on_change import OnChange
from orchestrator.sweep.settings import model_settings
from orchestrator.sweep.survey import surveys
from slurm.profile.profile import Profile
from slurm.query.facts import ClusterFacts
from slurm.submit.allocation import NODE_LOGS
from tests.orchestrator.sweeps import changed, make_sweep, ntksweep, sweep_of
from tests.tiny_models import save_tiny

ALLOWED = "--trust-remote-code"
CODE = """
from pathlib import Path

from transformers import {base}
{imports}
MARKER = Path({marker!r})
MARKER.touch()


class {name}({base}):
{body}
    def __init__(self, *arguments, **options):
        MARKER.touch()  # the module is imported once a process
        super().__init__(*arguments, **options)
"""
CHANGES = {
    "model.trust_remote_code": True,
    # beyond the parameters of any set, so that kernels are solved from blocks, which select needs
    "adapter.rank": 3,
    "kernel.eigenvectors": True,
    "grid.layer_sets": [{"subsets": 2}],
    # a report is about training
    "finetune": {"learning_rate": 0.05, "epochs": 1, "batch_size": 4, "num_evaluations": 1, "kernel_examples": 4},
    "compute.executor": "ray",
    "compute.workers": 1,
}


class Trap:
    """A sweep whose model comes with code that leaves a file wherever it runs."""

    def __init__(self, folder: Path) -> None:
        self.marker = folder / "the code ran"
        model = save_tiny("bert", folder / "model", hidden=8)
        self._write(model / "configuration.py", "BertConfig", "Config", "", "")
        self._write(
            model / "modeling.py",
            "BertForSequenceClassification",
            "Model",
            "from .configuration import Config\n",
            "    config_class = Config\n",
        )
        facts = json.loads((model / "config.json").read_text())
        classes = {
            "AutoConfig": "configuration.Config",
            "AutoModelForSequenceClassification": "modeling.Model",
        }
        (model / "config.json").write_text(json.dumps(facts | {"auto_map": classes}))
        self.spec = make_sweep(folder, CHANGES, model=model)
        self.model = model
        self.results = ResultsFolder(folder / "results")

    def _write(self, path: Path, base: str, name: str, imports: str, body: str) -> None:
        path.write_text(CODE.format(base=base, name=name, imports=imports, body=body, marker=str(self.marker)))

    def ran(self) -> bool:
        """Tell whether the code has run since the last call."""
        found = self.marker.exists()
        self.marker.unlink(missing_ok=True)
        return found

    def forget_the_survey(self) -> None:
        """Have the next command look at the model again."""
        shutil.rmtree(self.results.root / "artifacts" / "survey", ignore_errors=True)

    def sweep(self, *, trusts_code: bool) -> Sweep:
        return resolve(read_spec(self.spec), self.spec.parent, self.results, trusts_code=trusts_code)

    def refused(self, *command: str | Path) -> None:
        """Check that a command ends with a message that names the key, the model and the option, and runs no code."""
        answer = ntksweep(*command)
        assert answer.status == ExitCode.WRONG_INPUT
        for named in ("model.trust_remote_code: true", str(self.model), ALLOWED):
            assert named in answer.errors
        assert len(answer.message.strip().splitlines()) == 1
        assert not self.ran()


@pytest.fixture(scope="module")
def trap(tmp_path_factory: pytest.TempPathFactory) -> Trap:
    """A sweep that nothing was computed of."""
    return Trap(tmp_path_factory.mktemp("trap"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Trap:
    """A sweep that a worker of Ray has computed, with the code of its model."""
    made = Trap(tmp_path_factory.mktemp("finished"))
    answer = ntksweep("run", made.spec, ALLOWED)
    assert answer.status == 0, answer.errors + answer.output
    assert made.ran()
    return made


@pytest.fixture
def signals() -> Iterator[None]:
    """Give back the handler of SIGTERM, which the driver of an allocation takes."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_no_command_runs_code_because_a_spec_says_so(trap: Trap):
    trap.refused("plan", trap.spec)
    trap.refused("run", trap.spec)
    trap.refused("run", trap.spec, "--executor", "inline", "--on-change", "given")
    profile = trap.spec.with_name("cluster.yaml")
    profile.write_text(yaml.safe_dump({"memory": "2G", "time_limit": "1h"}))
    trap.refused("submit", trap.spec, "--profile", profile, "--dry-run")
    assert not trap.results.root.exists()


def test_the_command_line_allows_it(trap: Trap):
    answer = ntksweep("plan", trap.spec, ALLOWED)
    assert answer.status == 0, answer.errors
    assert trap.ran()


def test_the_option_alone_runs_no_code_that_the_spec_does_not_ask_for(trap: Trap):
    spec = trap.spec.with_name("plain.yaml")
    spec.write_text(yaml.safe_dump(changed(yaml.safe_load(trap.spec.read_text()), {"model.trust_remote_code": None})))
    ntksweep("plan", spec, ALLOWED)
    assert not trap.ran()


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["status", "--verify"],
        ["show"],
        ["report"],
        ["plot", "--force"],
        ["export"],
        ["select"],
        ["plan"],
        ["run"],
    ],
    ids=" ".join,
)
def test_looking_at_somebodys_results_runs_none_of_their_code(finished: Trap, command: list[str], tmp_path: Path):
    name, *options = command
    if name in ("export", "report", "plot"):
        written = tmp_path / ("written.csv" if name == "export" else "written.pdf")
        options = [*options, "--output", str(written)]
    path = finished.spec if name in ("plan", "run") else finished.results.root
    answer = ntksweep(name, path, *options)
    assert answer.status == 0, answer.errors
    assert not finished.ran()


def test_select_leaves_out_what_needs_the_model_unless_its_code_is_allowed(finished: Trap):
    command = ["select", str(finished.results.root), "--greedy", "2", "--json"]
    found = json.loads(ntksweep(*command).output)["greedy"]
    assert ALLOWED in found["without_weights"]
    assert "model.trust_remote_code: true" in found["without_weights"]
    assert str(finished.model) in found["without_weights"]
    assert not finished.ran()

    trusting = json.loads(ntksweep(*command, ALLOWED).output)["greedy"]
    assert trusting["without_weights"] == ""
    assert finished.ran()
    # what was chosen rests on stored blocks either way
    assert [step["value"] for step in trusting["seeds"][0]["steps"]] == [
        step["value"] for step in found["seeds"][0]["steps"]
    ]


def test_without_a_survey_resume_needs_the_option_and_select_looks_at_no_model(finished: Trap, tmp_path: Path):
    copy = tmp_path / "results"
    shutil.copytree(finished.results.root, copy)
    shutil.rmtree(copy / "artifacts" / "survey")
    finished.refused("resume", copy, "--dry-run")
    answer = ntksweep("select", copy, "--greedy", "1", ALLOWED)
    assert answer.status == ExitCode.WRONG_INPUT
    assert "commands that only read load no model" in answer.errors
    assert not finished.ran()


def test_going_on_with_a_sweep_asks_before_a_stage_begins(finished: Trap):
    more = finished.spec.with_name("more.yaml")
    more.write_text(
        yaml.safe_dump(changed(yaml.safe_load(finished.spec.read_text()), {"grid.seeds": [0, 1]})), encoding="utf-8"
    )
    finished.refused("run", more)
    finished.refused("plan", more, "--json")


def test_what_is_stored_allows_nothing(finished: Trap):
    assert "trusts" not in finished.results.spec_path.read_text()
    stored = finished.results.existing()
    with pytest.raises(UntrustedCodeError):
        model_settings(stored)
    # the stored side of a change is run as the command line says, not as it was run before
    for trusts in (False, True):
        given = finished.sweep(trusts_code=trusts)
        other = Sweep(
            given.spec.model_copy(update={"kernel": given.spec.kernel.model_copy(update={"outputs": "trace"})}),
            given.sources,
            given.trusts_code,
        )
        said: list[str] = []
        kept = finished.results.settle(other, OnChange.STORED, said.append)
        assert kept.spec == stored.spec
        assert len(said) == 1
        assert said[0].startswith("kept as it is in the folder (--on-change stored): kernel.outputs: ")
        assert kept.trusts_code is trusts


def test_every_variant_of_a_sweep_is_allowed_what_the_sweep_is():
    sweep = sweep_of({"grid.ranks": [1, 2]})
    assert [each.trusts_code for _, each in variants(sweep)] == [False, False]
    trusting = Sweep(sweep.spec, sweep.sources, trusts_code=True)
    assert [each.trusts_code for _, each in variants(trusting)] == [True, True]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster that has whatever is asked of it, as there is none here."""
    facts = ClusterFacts("22.05.8", "none", 1001, accounting=False, partitions={}, accounts=None)
    monkeypatch.setattr(submitting, "read_facts", lambda: facts)
    monkeypatch.setattr(submitting, "check_profile", lambda *_, **__: None)
    monkeypatch.setattr(submitting, "refuse_exclusion", lambda *_: None)
    monkeypatch.setattr(submitting, "try_script", lambda _: None)


@pytest.mark.usefixtures("cluster")
def test_a_submission_counts_the_start_of_an_allocation_and_not_its_wait(
    finished: Trap, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    profile = Profile.model_validate({"memory": "2G", "time_limit": "1h"})
    trusting = finished.sweep(trusts_code=True)
    plan = make_plan(trusting, surveys(trusting, finished.results.artifacts()))
    offer = submitting.prepare(plan, ResultsFolder(tmp_path / "none"), profile, 1)
    assert offer.starting is not None
    counted = sum(cost.seconds for cost in offer.costs if cost.seconds is not None)
    assert offer.estimated_hours * 3600 == pytest.approx(counted + offer.starting.seconds)
    _print_offer(Terminal(), offer)
    said = " ".join(capsys.readouterr().out.split())
    assert re.search(r"time starting - .* 14 s ~ ", said)
    assert "14 s of it for starting Ray and loading libraries" in said
    assert "the wait in Slurm's queue is not known" in said
    assert submitting.prepare(plan, finished.results, profile, 1).starting is None


@pytest.mark.usefixtures("cluster")
def test_a_submission_passes_on_and_records_what_its_command_line_allows(finished: Trap, tmp_path: Path):
    profile = Profile.model_validate({"memory": "2G", "time_limit": "1h"})
    trusting, doubting = finished.sweep(trusts_code=True), finished.sweep(trusts_code=False)
    plan = make_plan(trusting, surveys(trusting, finished.results.artifacts()))
    offer = submitting.prepare(plan, finished.results, profile, 1)
    assert offer.request.driver == ("-m", "orchestrator.cluster.driver", str(finished.results.root), ALLOWED)
    folder = ResultsFolder(tmp_path)
    write_submission(folder, offer.submission)
    (read,) = read_submissions(folder)
    assert read.trust_remote_code

    with pytest.raises(UntrustedCodeError, match=ALLOWED):
        submitting.prepare(
            make_plan(doubting, surveys(doubting, finished.results.artifacts())), finished.results, profile, 1
        )
    plain = Sweep(
        doubting.spec.model_copy(update={"model": doubting.spec.model.model_copy(update={"trust_remote_code": False})}),
        doubting.sources,
    )
    offer = submitting.prepare(make_plan(plain, [plan.variants[0].survey]), finished.results, profile, 1)
    assert offer.request.driver == ("-m", "orchestrator.cluster.driver", str(finished.results.root))
    assert not offer.submission.trust_remote_code


@pytest.mark.usefixtures("signals")
def test_the_driver_of_an_allocation_takes_it_from_its_command_line_alone(
    finished: Trap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    copy = tmp_path / "results"
    shutil.copytree(finished.results.root, copy)
    shutil.rmtree(copy / "artifacts" / "survey")
    assert driver.main([str(copy)]) == ExitCode.WRONG_INPUT
    assert ALLOWED in capsys.readouterr().err
    assert not finished.ran()

    monkeypatch.delenv(NODE_LOGS, raising=False)
    with pytest.raises(KeyError, match=NODE_LOGS):  # it looks at the model, and then for the Ray of its allocation
        driver.main([str(copy), ALLOWED])
    assert finished.ran()
