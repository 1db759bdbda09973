"""Time that is left of a sweep: from the times of its finished stages, and for other kinds from the plan's estimate."""

from collections.abc import Iterable, Mapping, Sequence
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
        begun_with: share that was done before, where another process had begun it.
    """

    kind: str
    seconds: float
    done: float | None = None
    begun_with: float = 0.0

    @property
    def whole(self) -> float | None:
        """Seconds that all of it takes at its present speed; None if too little was done since to tell."""
        since = 0.0 if self.done is None else self.done - self.begun_with
        return self.seconds / since if since >= SHARE_DONE else None


@dataclass(frozen=True)
class Left:
    """What is left of a sweep.

    Attributes:
        seconds: in seconds of one worker; None where kinds are unknown.
        unknown: kinds of unfinished stages that could take any time: none is finished, and no run made an estimate, or
            one that the run has outlasted.
    """

    seconds: float | None
    unknown: tuple[str, ...]


def time_left(
    unfinished: Mapping[str, int],
    means: Mapping[str, tuple[float, int]],
    estimates: Mapping[str, float],
    running: Iterable[RunningStage] = (),
    elapsed: float = 0.0,
) -> Left:
    """Return the time that is left.

    A stage counts with the mean time of its kind, over finished stages and, at their present speed, the trainings that
    run; where there are none, with the plan's estimate, times the ratio of the measured times of other kinds to their
    estimates. Kinds that take next to no time do not count in that ratio; those without an estimate are such. Of a
    training that runs what is left counts at its own speed. An estimate that nothing measured has corrected tells
    nothing once the run has lasted longer.

    Args:
        unfinished: stages of each kind that are not finished and still needed, those that run included.
        means: mean seconds of a finished stage of each kind, and the number of those.
        estimates: seconds of a stage of each kind as the plan estimates it.
        running: the stages that run.
        elapsed: seconds since the run that computes them began.
    """
    running = list(running)
    measured = _correction(unfinished, means, estimates)
    correction = 1.0 if measured is None else measured
    each: dict[str, float] = {}
    unknown = []
    for kind, count in unfinished.items():
        if not count:
            continue
        if (mean := _mean(means.get(kind, (0.0, 0)), [stage for stage in running if stage.kind == kind])) is not None:
            each[kind] = mean
        elif kind in estimates:
            each[kind] = estimates[kind] * correction
        else:
            unknown.append(kind)
    if unknown and not estimates:
        return Left(None, tuple(unknown))
    seconds = sum(unfinished[kind] * each[kind] for kind in each)
    for stage in running:
        if stage.kind in each:
            # it is among the unfinished ones with the time of all of it
            seconds += _rest(stage, each[stage.kind]) - each[stage.kind]
    if measured is None and elapsed > seconds and (guessed := tuple(kind for kind in each if kind not in means)):
        return Left(None, guessed)
    return Left(max(0.0, seconds), ())


def _mean(finished: tuple[float, int], running: Sequence[RunningStage]) -> float | None:
    """Return the mean seconds of the stages of a kind, those that run at their present speed; None if none is known."""
    mean, count = finished
    found = [whole for stage in running if (whole := stage.whole) is not None]
    return (mean * count + sum(found)) / (count + len(found)) if count or found else None


def _rest(stage: RunningStage, usual: float) -> float:
    """Return the seconds that a stage which runs has left; `usual` is what one of its kind takes."""
    if stage.done is None:
        return max(0.0, usual - stage.seconds)
    return (1 - stage.done) * (usual if stage.whole is None else stage.whole)


def _correction(
    unfinished: Mapping[str, int], means: Mapping[str, tuple[float, int]], estimates: Mapping[str, float]
) -> float | None:
    """Return the ratio of measured to estimated seconds over kinds that have both; None where that is too little."""
    finished = {kind: count for kind, (_, count) in means.items()}
    totals = {kind: each * (finished.get(kind, 0) + unfinished.get(kind, 0)) for kind, each in estimates.items()}
    counted = [kind for kind in means if totals.get(kind, 0.0) > TRIVIAL * sum(totals.values())]
    measured = sum(means[kind][0] * finished[kind] for kind in counted)
    estimated = sum(estimates[kind] * finished[kind] for kind in counted)
    return measured / estimated if measured >= CALIBRATED_FROM and estimated > 0 else None
