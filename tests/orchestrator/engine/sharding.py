"""Work of the processes of a group in tests of sweeps: they run one after the other."""

from collections.abc import Sequence
from pathlib import Path

import torch

from finetune.parallel.processes import joined_group
from orchestrator.engine.run import run
from orchestrator.engine.torchrun import follow
from orchestrator.engine.worker.following import dismiss
from orchestrator.spec import read_spec
from tests.orchestrator.sweeps import Quiet


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
