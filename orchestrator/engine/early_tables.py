"""Tables that a run writes while it goes on, so that the first cells can be looked at long before the last one."""

import logging
import time
from contextlib import suppress

from orchestrator.errors import SweepError
from orchestrator.plan.plan import Plan
from orchestrator.results.tables.manifest import written_at
from orchestrator.store.stage import Stage
from orchestrator.sweep.folder import ResultsFolder

logger = logging.getLogger(__name__)

SHARE = 0.02
"""Most of a run's time that its process takes to write tables meanwhile."""

EXPECTED_SECONDS = 0.1
"""Time that the first tables count with before they are written."""


class EarlyTables:
    """Writes the tables of what is finished, now and then.

    Args:
        plan: the plan.
        folder: its results folder.
    """

    def __init__(self, plan: Plan, folder: ResultsFolder) -> None:
        self._plan, self._folder = plan, folder
        self._filling = {stage.stage_id for stage in plan.filling}
        self._began = time.monotonic()
        self._spent, self._last = 0.0, EXPECTED_SECONDS
        self._has_new = False

    def finished(self, stage: Stage) -> None:
        """Note that a stage is finished, which may fill cells, or the columns of cells about training."""
        self._has_new |= stage.stage_id in self._filling

    def are_due(self) -> bool:
        """Tell whether something is finished that is in no table, and the next tables take no more than `SHARE`."""
        return self._has_new and self._spent + self._last <= SHARE * (time.monotonic() - self._began)

    def write(self) -> None:
        """Write the tables, unless another run of the sweep does so or has just done so; faults are left to the end."""
        self._has_new = False
        if time.time() - written_at(self._folder) < self._last / SHARE:
            return
        began = time.monotonic()
        from orchestrator.results.tables.write import collect_early

        with suppress(SweepError):
            n_cells = collect_early(self._plan, self._folder)
            logger.info("%d cells in the tables so far", n_cells)
        self._last = time.monotonic() - began
        self._spent += self._last
