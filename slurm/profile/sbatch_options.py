"""Options of sbatch that a profile may add, and those that it must not because something else sets them."""

import re

_BY_KEY = {
    "account": "account",
    "array": "allocations",
    "constraint": "constraint",
    "cpus-per-gpu": "cpus_per_task",
    "cpus-per-task": "cpus_per_task",
    "exclude": "exclude",
    "gpus": "gpus_per_task",
    "gpus-per-node": "gpus_per_task",
    "gpus-per-socket": "gpus_per_task",
    "gpus-per-task": "gpus_per_task",
    "gres": "gpus_per_task",
    "mem": "memory",
    "mem-per-cpu": "memory",
    "mem-per-gpu": "memory",
    "no-requeue": "requeues",
    "nodes": "nodes",
    "ntasks": "tasks_per_node",
    "ntasks-per-gpu": "tasks_per_node",
    "ntasks-per-node": "tasks_per_node",
    "partition": "partition",
    "qos": "qos",
    "requeue": "requeues",
    "signal": "signal_seconds",
    "time": "time_limit",
}
"""Each option that a key of the profile sets, with that key."""

_OURS = {
    "chdir", "clusters", "error", "export", "export-file", "get-user-env", "ignore-pbs", "input", "job-name",
    "open-mode", "output", "parsable", "quiet", "test-only", "wait", "wrap",
}  # fmt: skip
"""Options that ntksweep sets, or that would keep it from finding its jobs or passing them what they need."""


def checked_options(options: dict[str, str | int | bool]) -> dict[str, str | int | bool]:
    """Return further options of sbatch with their names as sbatch writes them.

    Raises:
        ValueError: an option is set by another key or by ntksweep, is no long name, or has no value that fits a line.
    """
    checked: dict[str, str | int | bool] = {}
    for given, value in options.items():
        name = given.removeprefix("--").replace("_", "-")
        if not re.fullmatch(r"[a-z][a-z0-9-]+", name):
            raise ValueError(f"`{given[:60]}` is not the long name of an option of sbatch, such as `licenses`")
        if name in _BY_KEY:
            raise ValueError(f"`{given}` is set by the key `{_BY_KEY[name]}` of the profile; use that")
        if name in _OURS:
            raise ValueError(f"`{given}` is for ntksweep alone to set; remove it")
        if value is False:
            raise ValueError(f"`{given}: false` says nothing to sbatch: leave the option out")
        if isinstance(value, str) and (not value or not value.isprintable()):
            raise ValueError(f"the value of `{given}` must be one line of characters that can be seen")
        if name in checked:
            raise ValueError(f"`{name}` is written twice, once as `{given}`")
        checked[name] = value
    return checked
