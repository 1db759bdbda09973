"""`ray start`, loaded at once but begun only when told to: `python -m slurm.ray.start ARGUMENTS`.

Loading Ray takes as long as starting its head, so the other nodes load Ray while the head starts.
"""

import sys


def main() -> None:
    """Run `ray start` with this process's arguments once a line arrives; end if the input ends instead."""
    from ray.scripts.scripts import main as ray

    if sys.stdin.readline():
        ray()


if __name__ == "__main__":
    main()
