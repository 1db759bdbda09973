"""Last step of an allocation: it gives back the claims of its ended processes, so that no other process waits.

`python -m orchestrator.cluster.release FOLDER NODE... [--out-of-memory=NODE]...`, run by the allocation itself.
"""

import argparse
import os
from collections import Counter
from pathlib import Path

from orchestrator.cluster.records import read_submissions
from orchestrator.plan.index import plan_index
from orchestrator.store.files import remove_leftovers, slurm_job
from orchestrator.store.journal import read_journals
from orchestrator.sweep.folder import ResultsFolder

OUT_OF_MEMORY = "out of memory"
"""Class of failures for lack of memory, as written in journals."""


def release(folder: ResultsFolder, nodes: list[str], out_of_memory: list[str]) -> None:
    """Give back the claims of processes of this start of the job on `nodes`, where none of them is alive.

    Files that they had not finished writing are removed.

    Args:
        folder: the results folder.
        nodes: the nodes.
        out_of_memory: nodes where they were ended for their memory; later attempts at their stages need to know it.

    Raises:
        StorageError: the folder cannot be written.
    """
    mine = {"slurm_job": slurm_job(), "slurm_restart": os.environ.get("SLURM_RESTART_COUNT")}
    remove_leftovers(folder.root, ended_nodes=nodes)
    for node in nodes:
        stages = folder.claims().release_all({**mine, "host": node})
        if node in out_of_memory:
            _tell(folder, node, stages)


def _tell(folder: ResultsFolder, node: str, stages: list[str]) -> None:
    message = f"Slurm ended what ran on {node}: it took more memory than the profile's `memory`"
    kinds, journal = plan_index(folder).kinds, folder.journal()
    for stage in stages:
        if stage in kinds:  # not the claim on the tables
            journal.write("failed", kind=kinds[stage], stage=stage, failure=OUT_OF_MEMORY, message=message)


def ran_out_of_memory(folder: ResultsFolder) -> Counter[str]:
    """Return how often each stage has run out of memory since the sweep was last submitted."""
    submissions = read_submissions(folder)
    since = submissions[-1].time if submissions else 0.0
    return Counter(
        event["stage"]
        for event in read_journals(folder.journals)
        if event["event"] == "failed"
        and event.get("failure") == OUT_OF_MEMORY
        and event["time"] > since
        and "stage" in event
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("nodes", nargs="*")
    parser.add_argument("--out-of-memory", action="append", default=[])
    options = parser.parse_args()
    release(ResultsFolder(options.folder), options.nodes, options.out_of_memory)
