"""Inline runs of several processes, which torchrun starts: the first one runs the sweep, the others follow it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune.parallel.process_group import ProcessGroup
from orchestrator.engine.run import resolve
from orchestrator.engine.worker.following import Follower, dismiss
from orchestrator.errors import SpecError, WorkerStartError
from orchestrator.installation import installation, refuse_others
from orchestrator.process_log import process_log
from orchestrator.spec import Spec
from orchestrator.sweep.folder import ResultsFolder


@contextmanager
def launched_group(spec: Spec) -> Iterator[ProcessGroup]:
    """Yield the processes that run a spec inline; only this one if models are not shared or not run inline.

    Raises:
        SpecError: torchrun did not start this process, or not as many as a process group has.
    """
    if spec.compute.executor != "inline" or spec.group_size == 1:
        yield ProcessGroup()
        return
    started = int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1
    if started != spec.group_size:
        raise SpecError(
            f"the inline executor needs sharding.group_size: {spec.group_size} processes, and there "
            + (f"are {started}" if started > 1 else "is one")
            + f": start it as `torchrun --nproc-per-node {spec.group_size} -m ntksweep run SPEC --executor "
            "inline`, or use the ray executor, which starts them itself",
            key="sharding.group_size",
        )
    from finetune.parallel.processes import joined_group

    with joined_group() as process_group:
        refuse_others(process_group.gathered(installation().to_json()))
        yield process_group
        if process_group.leads:
            dismiss(process_group)


def follow(spec: Spec, spec_folder: Path, process_group: ProcessGroup, *, trusts_code: bool) -> None:
    """Take part in the run of the first process of a group until that run ends.

    Raises:
        SweepError: the model or the data are not there, or this process's part of a stage failed.
    """
    folder = ResultsFolder(spec.folder)
    sweep = resolve(spec, spec_folder, folder, trusts_code=trusts_code)
    with process_log(folder.logs):
        failure = Follower(sweep, folder, process_group).follow()
    if failure is not None:
        raise WorkerStartError(
            f"process {process_group.rank} of the process group failed ({failure.failure}): {failure.message}"
        )
