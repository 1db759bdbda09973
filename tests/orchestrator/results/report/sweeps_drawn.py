"""Sweeps whose reports are looked at."""

import shutil
from pathlib import Path
from typing import Any

from orchestrator.plan.plan import Plan, make_plan
from orchestrator.results.tables.write import collect
from orchestrator.spec import read_spec
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.survey import kept_surveys

HOSTILE = "<script>document.title='taken'</script>[/b]"
"""A name that a page must show as it is."""

DATA = HOSTILE.replace("/", "") + ".parquet"
"""A name of a file, which is that of the task."""

TRAINED: dict[str, Any] = {
    "finetune": {
        "optimizer": "gradient_descent", "learning_rate": 0.05, "epochs": 12, "num_evaluations": 4,
        "kernel_examples": 3,
    },
    "grid.seeds": [0, 1],
    "grid.lambdas": {"values": [0.5, 2.0, 8.0, 32.0], "scale": "trace"},
    "kernel.eigenvectors": True,
    "kernel.additions": True,
}  # fmt: skip
"""Changes of the tiny spec that give every picture."""


def with_failures(finished: Path, copy: Path, message: str) -> Path:
    """Return a copy of a sweep's results in which the solves of the last seed have failed, and their cells are gone."""
    shutil.copytree(read_spec(finished).folder, copy)
    folder = ResultsFolder(copy)
    plan = _plan(folder)
    last = max(solve.seed for solve in plan.solves)
    journal = folder.journal()
    for solve in plan.solves:
        if solve.seed == last:
            stage = solve.stage
            folder.artifacts().record_path(stage.kind, stage.stage_id).unlink()
            journal.write("started", kind=stage.kind, stage=stage.stage_id)
            journal.write("failed", kind=stage.kind, stage=stage.stage_id, failure="code", message=message)
    journal.close()
    shutil.rmtree(folder.tables)  # or they would count as complete
    collect(_plan(folder), folder)
    return copy


def _plan(folder: ResultsFolder) -> Plan:
    sweep = folder.existing()
    return make_plan(sweep, kept_surveys(sweep, folder.artifacts()), folder.artifacts())
