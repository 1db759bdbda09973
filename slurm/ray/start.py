"""`ray start`, loaded at once but begun only when told to: `python -m slurm.ray.start ARGUMENTS`.

Loading Ray takes as long as starting its head, so the other nodes load Ray while the head starts.
"""

import sys
from collections.abc import Sequence
from typing import Any


def main() -> None:
    """Run `ray start` with this process's arguments once a line arrives; end if the input ends instead."""
    from ray._private.node import Node
    from ray.scripts.scripts import main as ray

    _without_unused_servers(Node, sys.argv)
    if sys.stdin.readline():
        ray()


def _without_unused_servers(node: Any, arguments: Sequence[str]) -> None:
    """Have Ray start no server for its clients, and no server of its dashboard where there is none.

    Each of them loads Ray anew, while Ray's other programs wait for each other for 15 seconds and no longer.
    """
    node.start_ray_client_server = lambda *_, **__: None
    if "--include-dashboard=False" in arguments:
        node.start_api_server = lambda *_, **__: None


if __name__ == "__main__":
    main()
