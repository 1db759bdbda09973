"""A process that is killed while it measures Hessians: the sweep goes on, with the tables of an undisturbed run."""

import os
import signal
from pathlib import Path

import pytest

from orchestrator.spec import read_spec
from orchestrator.stages.smoothness import compute
from tests.faults.conftest import NewSweep
from tests.faults.driving import ntksweep
from tests.faults.journal_proof import prove_nothing_was_computed_twice
from tests.faults.tables import assert_same_tables, numbers
from tests.orchestrator.sweeps import run_spec

pytestmark = [pytest.mark.faults]

SMOOTH = {
    "grid.layer_sets": [{"layers": [[1]]}],
    "grid.seeds": [0],
    "finetune": {
        "learning_rate": 0.05, "epochs": 1, "num_evaluations": 1, "kernel_examples": 0, "stacked_cells": 2,
        "smoothness": {"radii": [0.0, 1.0], "examples": 1},
    },
}  # fmt: skip


def die_at_the_second_point() -> None:
    measure, measured = compute.hessian_norms_at, []

    def die(*arguments):
        measured.append(arguments)
        if len(measured) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return measure(*arguments)

    compute.hessian_norms_at = die


def test_a_stage_that_is_killed_is_measured_again(new_sweep: NewSweep, tmp_path: Path):
    whole, killed = (new_sweep(SMOOTH, folder=tmp_path / name) for name in ("whole", "killed"))
    assert not run_spec(whole).report.failures
    answer = ntksweep("run", killed, "--executor", "inline", folder=killed.parent, prepare=die_at_the_second_point)
    assert answer.status == -signal.SIGKILL, answer.output
    results = read_spec(killed).folder
    assert not list((results / "artifacts" / "smoothness").glob("*.json"))
    answer = ntksweep("run", killed, "--executor", "inline", folder=killed.parent)
    assert answer.status == 0, answer.output
    assert_same_tables(results, numbers(read_spec(whole).folder))
    prove_nothing_was_computed_twice(results)
    assert not list((results / "claims").iterdir())
    assert not [path for path in results.rglob(".*") if path.is_file()]
