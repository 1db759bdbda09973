"""What an allocation does last: it clears up after its processes, which are gone, so that nobody waits for them.

`python -m orchestrator.cluster.release FOLDER NODE...`, run by the allocation itself.
"""

import os
import sys
from pathlib import Path

from orchestrator.folder import ResultsFolder
from orchestrator.store.files import remove_leftovers, slurm_job


def release(folder: ResultsFolder, nodes: list[str]) -> None:
    """Give back what processes of this very start of the job claimed on `nodes`, and remove what they half wrote.

    None of them may live there.

    Raises:
        StorageError: the folder cannot be written.
    """
    mine = {"slurm_job": slurm_job(), "slurm_restart": os.environ.get("SLURM_RESTART_COUNT")}
    for node in nodes:
        folder.claims().release_all({**mine, "host": node})
    remove_leftovers(folder.root, ended_nodes=nodes)


if __name__ == "__main__":
    release(ResultsFolder(Path(sys.argv[1])), sys.argv[2:])
