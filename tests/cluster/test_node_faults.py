"""A job says which requirement its node lacks: it ends at once, and `status` and `logs` name the thing."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from slurm.devcluster import DevCluster
from tests.cluster.conftest import NewSubmitted
from tests.cluster.login import Login
from tests.cluster.submitted import NTKSWEEP

pytestmark = pytest.mark.xdist_group("cluster-a")

LACKING: list[tuple[dict[str, Any], str]] = [
    ({"modules": ["python/3.99"]}, "the module python/3.99 cannot be loaded on n1"),
    ({"virtual_environment": "/opt/ntksweep-env"}, "there is no /opt/ntksweep-env/bin/python on n1"),
    ({"python": "/opt/python/bin/python3"}, "there is no /opt/python/bin/python3 on n1"),
    ({"container": "apptainer exec image.sif"}, "there is no apptainer on n1"),
]
"""Changes of the profile, and what the job says."""


def test_what_a_node_lacks_is_named_with_the_node(login: Login, new_sweep: NewSubmitted) -> None:
    sweep = new_sweep()
    for profile, _ in LACKING:
        sent = login.submit(sweep, "--add", **profile, sbatch={"nodelist": "n1"})
        assert sent.status == 0, sent.output
    waited = login.run(sweep, "wait", sweep.results)
    assert waited.status == 3
    found = login.status(sweep)["allocations"]
    assert [(each["state"], each["exit_code"], each["words"]) for each in found] == [
        ("FAILED", [78, 0], said) for _, said in LACKING
    ]
    for each, (_, said) in zip(found, LACKING, strict=True):
        assert f"{each['job']}: {said}" in waited.output
        assert f"ntksweep: {said}" in login.must(sweep, "logs", sweep.results, "--job", each["job"])


def test_results_that_the_nodes_do_not_see_are_named_as_the_reason(
    cluster: DevCluster, new_sweep: NewSubmitted
) -> None:
    sweep = new_sweep()
    kept = sweep.folder.with_name("kept")
    sweep.folder.rename(kept)
    sweep.folder.mkdir()

    def alone(*arguments: str | Path) -> str:
        """Run a command on a login node that has a disk of its own at the sweep's folder."""
        words = shlex.join([str(NTKSWEEP), *map(str, arguments)])
        mount = f"mount --bind {kept} {sweep.folder} && cd {sweep.folder} && exec {words}"
        return cluster.run(["unshare", "--mount", "sh", "-c", mount], check=False, cwd=Path("/")).stdout

    profile = sweep.profile()
    profile.rename(kept / profile.name)
    alone("submit", sweep.spec, "--profile", profile, "--yes")
    alone("wait", sweep.results)
    (allocation,) = json.loads(alone("status", sweep.results, "--json"))["allocations"]
    assert allocation["state"] == "FAILED"
    assert allocation["words"] == "it left no log: it never began, or its nodes do not see the results folder"
    assert list(sweep.folder.iterdir()) == []
