"""Time that is left of a sweep: from the times of its finished stages, and for other kinds from the plan's estimate."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

CALIBRATED_FROM = 1.0
"""Seconds of finished stages from which on they correct the estimates of other kinds."""

TRIVIAL = 0.05
"""Share of the sweep's estimated time below which a kind of stage says nothing of the speed of others."""

SHARE_DONE = 0.02
"""Share of a training that must be done before its own speed counts."""


@dataclass(frozen=True)
class RunningStage:
    """A stage that is being computed.

    Attributes:
        kind: its kind.
        seconds: time since it began.
        done: share of it that is done; None where it does not say.
    """

    kind: str
    seconds: float
    done: float | None = None


@dataclass(frozen=True)
class Left:
    """What is left of a sweep.

    Attributes:
        seconds: in seconds of one worker; None where kinds are unknown.
        unknown: kinds of unfinished stages that could take any time, for none is finished and no run made an estimate.
    """

    seconds: float | None
    unknown: tuple[str, ...]


def time_left(
    unfinished: Mapping[str, int],
    means: Mapping[str, tuple[float, int]],
    estimates: Mapping[str, float],
    running: Iterable[RunningStage] = (),
) -> Left:
    """Return the time that is left.

    A stage counts with the mean time of the finished ones of its kind; where there is none, with what a training that
    runs needs at its present speed; else with the plan's estimate, times the ratio of the measured times of other kinds
    to their estimates. Kinds that take next to no time do not count in that ratio; those without an estimate are such.

    Args:
        unfinished: stages of each kind that are not finished and still needed, those that run included.
        means: mean seconds of a finished stage of each kind, and the number of those.
        estimates: seconds of a stage of each kind as the plan estimates it.
        running: the stages that run.
    """
    running = list(running)
    correction = _correction(unfinished, means, estimates)
    each: dict[str, float] = {}
    unknown = []
    for kind, count in unfinished.items():
        if not count:
            continue
        if kind in means:
            each[kind] = means[kind][0]
        elif (speed := _at_present_speed(kind, running)) is not None:
            each[kind] = speed
        elif kind in estimates:
            each[kind] = estimates[kind] * correction
        else:
            unknown.append(kind)
    if unknown and not estimates:
        return Left(None, tuple(unknown))
    seconds = sum(unfinished[kind] * each[kind] for kind in each)
    for stage in running:
        if stage.kind in each:
            share = stage.done if stage.done is not None else stage.seconds / max(each[stage.kind], 1e-9)
            seconds -= min(1.0, share) * each[stage.kind]
    return Left(max(0.0, seconds), ())


def _at_present_speed(kind: str, running: Iterable[RunningStage]) -> float | None:
    """Return the seconds of a stage of a kind by how far those are that run; None if none is far enough."""
    found = [
        stage.seconds / stage.done
        for stage in running
        if stage.kind == kind and stage.done is not None and stage.done >= SHARE_DONE
    ]
    return sum(found) / len(found) if found else None


def _correction(
    unfinished: Mapping[str, int], means: Mapping[str, tuple[float, int]], estimates: Mapping[str, float]
) -> float:
    """Return the ratio of measured to estimated seconds over kinds that have both; 1 where that is too little."""
    finished = {kind: count for kind, (_, count) in means.items()}
    totals = {kind: each * (finished.get(kind, 0) + unfinished.get(kind, 0)) for kind, each in estimates.items()}
    counted = [kind for kind in means if totals.get(kind, 0.0) > TRIVIAL * sum(totals.values())]
    measured = sum(means[kind][0] * finished[kind] for kind in counted)
    estimated = sum(estimates[kind] * finished[kind] for kind in counted)
    return measured / estimated if measured >= CALIBRATED_FROM and estimated > 0 else 1.0
