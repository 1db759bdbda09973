"""Where Jacobian rows are kept: on the disk, or in the memory of whoever multiplies them."""

from dataclasses import dataclass

from orchestrator.errors import SpecError
from orchestrator.spec import Spec
from orchestrator.spec.quantities import human_bytes
from orchestrator.sweep.folder import Sweep
from orchestrator.sweep.model_memory import model_memory, this_device
from orchestrator.sweep.sizes import Sizes, workspace_bytes
from orchestrator.sweep.survey_facts import Survey
from orchestrator.sweep.workers import worker_count

DISK_BYTES_PER_SECOND = 1e9
"""Rate at which a results folder takes and gives rows, checksums included."""

FLOPS_PER_SECOND = {"cpu": 2e10, "cuda": 5e13}
"""Rate at which a thread, or a GPU, makes rows."""

SHARE_OF_DEVICE = 0.5
"""Share of a GPU's memory, beside the weights, that rows may take; activations and products have the rest."""


@dataclass(frozen=True)
class RowsPlace:
    """Where the rows of a variant are kept.

    Attributes:
        resident: True if they stay in memory, and leave blocks alone.
        panel_shards: shards whose rows a worker, or the processes of a group together, hold at once, beside one that
            they are multiplied with.
        why: the reason, for people.
    """

    resident: bool
    panel_shards: int
    why: str

    def panels(self, n_shards: int) -> list[range]:
        """Return the positions of the training shards of each panel."""
        step = self.panel_shards
        return [range(start, min(start + step, n_shards)) for start in range(0, n_shards, step)]


def rows_place(sweep: Sweep, survey: Survey, sizes: Sizes, reads_rows: str, flops_per_example: float) -> RowsPlace:
    """Return where rows are kept: what `compute.rows` says, or what costs less time if it says auto.

    Args:
        sweep: the sweep of one variant.
        survey: facts about its model and data.
        sizes: its sizes.
        reads_rows: why some stages read rows from the disk; empty where none does.
        flops_per_example: floating-point operations of the rows of one example.

    Raises:
        SpecError: `compute.rows` is resident, and something reads rows from the disk.
    """
    wanted = sweep.spec.compute.rows
    most = _shards_in_memory(sweep.spec, survey, sizes, sweep.spec.group_size)
    panel, stored_panel = max(1, most - 1), max(1, _shards_in_memory(sweep.spec, survey, sizes) - 1)
    if wanted == "resident":
        if reads_rows:
            said = f"resident leaves no rows on the disk, and {reads_rows}: set auto or stored"
            raise SpecError(said, key="compute.rows")
        return RowsPlace(True, panel, "compute.rows says so")
    if wanted == "stored" or reads_rows:
        return RowsPlace(False, stored_panel, reads_rows or "compute.rows says so")
    if most < 2:
        held = human_bytes(2 * sizes.shard_bytes)
        return RowsPlace(False, stored_panel, f"two shards of rows ({held}) do not fit into memory together")
    return _cheaper(sweep, sizes, panel, stored_panel, flops_per_example)


def _shards_in_memory(spec: Spec, survey: Survey, sizes: Sizes, processes: int = 1) -> int:
    """Return the number of shards whose rows some processes can hold together while they make blocks.

    Each holds an equal part of every shard, and once more that of another process.
    """
    rows = sizes.shard_examples * sizes.rows_per_example
    room = spec.compute.memory_budget - workspace_bytes(rows, rows)
    if spec.compute.device == "cuda" and (device := this_device(spec, 1)) is not None:
        room = int(SHARE_OF_DEVICE * (device.memory - model_memory(spec, survey).on_device))
    passed, own = int(processes > 1), -(-sizes.shard_bytes // processes)
    return max(0, (room - sizes.batch_bytes) // own - passed)


def _cheaper(sweep: Sweep, sizes: Sizes, panel: int, stored_panel: int, flops_per_example: float) -> RowsPlace:
    """Return the place that costs less time, for all seeds of a variant; each has its own panel."""
    compute, seeds = sweep.spec.compute, len(set(sweep.spec.grid.seeds))
    n_train, n_eval = len(sizes.train_shards), len(sizes.eval_shards)
    bands = RowsPlace(True, panel, "").panels(n_train)
    captured = sum(n_train - band.start + n_eval for band in bands)
    times = captured / (n_train + n_eval)
    n_bytes = (n_train + n_eval) * sizes.shard_bytes * seeds
    speed = FLOPS_PER_SECOND[compute.device] * (compute.threads if compute.device == "cpu" else 1)
    capture = (sizes.n_train + sizes.n_eval) * flops_per_example * seeds / speed
    workers, size = worker_count(sweep), sweep.spec.group_size
    at_once = min(workers, len(bands) * seeds * size)
    resident = times * capture / at_once
    stored = capture / workers + (2 + times) * n_bytes / DISK_BYTES_PER_SECOND
    amounts = f"each is captured {_often(times)}, and {human_bytes(n_bytes)} need not go to the disk and back"
    if resident <= stored:
        return RowsPlace(True, panel, amounts)
    few = f", by at most {at_once} of {workers} workers" if at_once < workers else ""
    return RowsPlace(False, stored_panel, f"in memory each would be captured {_often(times)}{few}")


def _often(times: float) -> str:
    return "once" if times == 1 else f"{times:.3g} times"
