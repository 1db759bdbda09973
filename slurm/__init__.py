"""Slurm: profiles of jobs, facts about the cluster, Ray inside an allocation, and a cluster on one machine.

What a program may rely on is in `__all__`; each name loads its module when it is first used.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slurm.errors import SlurmError
    from slurm.profile.profile import Profile
    from slurm.query.check import check_profile
    from slurm.query.facts import ClusterFacts, read_facts
    from slurm.query.job_state import State
    from slurm.query.states import JobState, query_states
    from slurm.submit.submission import Request, script, submit_allocations

__all__ = [
    "ClusterFacts",
    "JobState",
    "Profile",
    "Request",
    "SlurmError",
    "State",
    "check_profile",
    "query_states",
    "read_facts",
    "script",
    "submit_allocations",
]

_MODULES = {
    "SlurmError": "slurm.errors",
    "Profile": "slurm.profile.profile",
    "check_profile": "slurm.query.check",
    "ClusterFacts": "slurm.query.facts",
    "read_facts": "slurm.query.facts",
    "State": "slurm.query.job_state",
    "JobState": "slurm.query.states",
    "query_states": "slurm.query.states",
    "Request": "slurm.submit.submission",
    "script": "slurm.submit.submission",
    "submit_allocations": "slurm.submit.submission",
}
"""The module of each public name."""

logging.getLogger(__name__).addHandler(logging.NullHandler())  # a program that imports it decides what is shown


if not TYPE_CHECKING:  # or a type checker would believe that any name is here

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(_MODULES[name]), name)
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
