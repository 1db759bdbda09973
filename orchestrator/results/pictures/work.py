"""The work behind a results folder: stages by kind, their time, their bytes, and what failed."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from orchestrator.errors import SweepError
from orchestrator.plan.index import plan_index
from orchestrator.results.status import Status, status_of
from orchestrator.store.history import History
from orchestrator.sweep.folder import ResultsFolder


@dataclass(frozen=True)
class Work:
    """The stages of a sweep.

    Attributes:
        status: how the sweep stands; None where its plan cannot be made here any more.
        kinds: a row for each kind of stage: `stage`, `planned`, `finished`, `running`, `failed`, `missing`, `seconds`
            of one worker, and `bytes` of its artifacts.
        failures: see `Failures`.
    """

    status: Status | None
    kinds: pd.DataFrame
    failures: "tuple[Failures, ...]"


@dataclass(frozen=True)
class Failures:
    """Stages that failed alike.

    Attributes:
        kind: their kind.
        failure: class of the failure.
        message: what was said of one of them.
        count: how many there are.
        which: layer sets and seeds that wait for them; empty where they fill no cells.
    """

    kind: str
    failure: str
    message: str
    count: int
    which: str


def work_of(folder: ResultsFolder) -> Work:
    """Return the work behind a results folder; nothing is read but journals, and names and sizes of files."""
    history = History(folder.journals)
    try:
        status = status_of(plan_index(folder), folder, history)
    except SweepError:  # its model or data are no longer there, and the plan was not kept
        history.update()
        status = None
    seconds = history.total_seconds()
    counts = {} if status is None else {str(each.name): each for each in status.kinds}
    rows = [
        {"stage": kind}
        | {name: getattr(counts[kind], name) if kind in counts else None for name in _STATES}
        | {"seconds": seconds.get(kind, 0.0), "bytes": _bytes_below(folder.root / "artifacts" / kind)}
        for kind in dict.fromkeys((*counts, *seconds))
    ]
    columns = ["stage", *_STATES, "seconds", "bytes"]
    return Work(status, pd.DataFrame(rows, columns=columns), _alike(() if status is None else status.failures))


_STATES = ("planned", "finished", "running", "failed", "missing")


def _bytes_below(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(root, name)).st_size  # noqa: PTH118 - many files
            except OSError:  # it was moved meanwhile
                continue
    return total


def _alike(failures: tuple[Mapping[str, Any], ...]) -> tuple[Failures, ...]:
    """Return failures of one kind and class, with the same message, as one, the most frequent first."""
    count: Counter[tuple[str, str, str]] = Counter()
    which: dict[tuple[str, str, str], list[str]] = {}
    for event in failures:
        key = str(event["kind"]), str(event["failure"]), str(event.get("message", ""))
        count[key] += 1
        if "layer_sets" in event:
            named = ", ".join(event["layer_sets"][:3]) + (" and more" if len(event["layer_sets"]) > 3 else "")
            which.setdefault(key, []).append(f"{named} (seed {event['seed']})")
    return tuple(
        Failures(*key, n, "; ".join(which.get(key, [])[:3]) + (" …" if len(which.get(key, [])) > 3 else ""))
        for key, n in count.most_common()
    )
