"""Finished solve stages that serve a plan's lambdas although they were made for other lambdas."""

from dataclasses import replace

from orchestrator.errors import DamagedArtifactError
from orchestrator.stages.solve import SolveParameters
from orchestrator.store.artifacts import ArtifactStore
from orchestrator.store.stage import Stage


class KeptSolves:
    """The finished iterative solve stages of a results folder, which multiply with kernels and do not decompose them.

    Each was made for a lowest lambda, which is part of its identity, and serves every lambda from some value on. A plan
    with another lowest lambda uses it instead of its own stage, so that no product with a kernel is repeated.
    """

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store
        self._finished: set[str] | None = None
        self._serving: dict[str, tuple[float, float]] | None = None

    def instead_of(self, stage: Stage[SolveParameters]) -> Stage[SolveParameters]:
        """Return a finished stage that serves all lambdas of a planned solve stage; the planned one if there is none.

        The planned stage itself comes first, then that with the highest lowest lambda. Damaged artifacts do not count.
        """
        own = stage.parameters.iterative
        if own is None or stage.stage_id in self._all_finished():
            return stage
        served, wanted = self._served(), own.lowest_lambda
        for lowest in sorted({lowest for lowest, serves_from in served.values() if serves_from <= wanted})[::-1]:
            other = replace(stage, parameters=replace(stage.parameters, iterative=replace(own, lowest_lambda=lowest)))
            if other.stage_id in served and served[other.stage_id][1] <= wanted:
                return other
        return stage

    def _all_finished(self) -> set[str]:
        if self._finished is None:
            self._finished = self._store.finished("solve")
        return self._finished

    def _served(self) -> dict[str, tuple[float, float]]:
        """Return by identity the lowest lambda that each stage was made for, and the lowest one that it serves."""
        if self._serving is None:
            self._serving = {}
            for stage_id in sorted(self._all_finished()):
                try:
                    facts = self._store.read("solve", stage_id).facts
                    self._serving[stage_id] = (float(facts["lowest_lambda"]), float(facts["serves_from"]))
                except (DamagedArtifactError, KeyError, TypeError, ValueError):
                    continue  # damaged, or a decomposition, which serves every lambda
        return self._serving
