"""What an allocation does last: it gives back the claims of its processes, which are gone, so that nobody waits.

`python -m orchestrator.cluster.release FOLDER NODE...`, run by the allocation itself.
"""

import os
import sys
from pathlib import Path

from orchestrator.folder import ResultsFolder
from orchestrator.store.files import slurm_job


def release(folder: ResultsFolder, nodes: list[str]) -> None:
    """Give back the claims that processes of this very start of the job took on `nodes`, where none of them lives.

    Raises:
        StorageError: the folder cannot be written.
    """
    mine = {"slurm_job": slurm_job(), "slurm_restart": os.environ.get("SLURM_RESTART_COUNT")}
    for node in nodes:
        folder.claims().release_all({**mine, "host": node})


if __name__ == "__main__":
    release(ResultsFolder(Path(sys.argv[1])), sys.argv[2:])
