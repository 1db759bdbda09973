"""Work of the processes of a group in tests of sweeps: they run one after the other."""

from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import torch

from finetune.parallel.processes import joined_group
from orchestrator.engine.run import run
from orchestrator.engine.torchrun import follow
from orchestrator.engine.worker.following import dismiss
from orchestrator.spec import read_spec
from orchestrator.sweep.residency import RowsPlace
from orchestrator.sweep.variant import Variant
from tests.orchestrator.sweeps import Quiet


def run_sweeps_by_panels(specs: Sequence[Path]) -> list[str]:
    """Run the specs as `run_sweeps` does, where the processes hold two shards of rows at once, and no more."""
    with mock.patch.object(Variant, "rows_place", RowsPlace(True, 1, "of a test")):
        return run_sweeps(specs)


def run_sweeps(specs: Sequence[Path]) -> list[str]:
    """Run the specs inline, led by the first process; return what failed in them."""
    torch.set_num_threads(1)
    failures = []
    with joined_group() as group:
        for path in specs:
            spec = read_spec(path)
            if not group.leads:
                follow(spec, path.parent, group, trusts_code=False)
                continue
            ending = run(spec, path.parent, Quiet(), process_group=group)
            failures += [f"{path.parent.name}: {failure.message}" for failure in ending.report.failures]
            dismiss(group)
    return failures
