"""Training is never lost in a last step: whatever fails after the last update, no update is made again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune.training import loop
from finetune.training.kernel_change import KernelChange
from orchestrator.stages.compare import compute as compare
from orchestrator.stages.context.work import Work
from orchestrator.stages.finetune import trained_cells
from orchestrator.stages.finetune.training_inputs import TrainingInputs
from tests.faults.tables import assert_same_tables, numbers
from tests.orchestrator.sweeps import make_sweep, run_spec

STEPS = 6
TRAINING: dict[str, Any] = {
    "optimizer": "gradient_descent", "learning_rate": 0.05, "epochs": STEPS, "num_evaluations": 2, "kernel_examples": 2,
}  # fmt: skip


class Killed(BaseException):
    """The process dies; nothing in it may tidy up."""


LAST_STEPS: tuple[tuple[Any, str, BaseException], ...] = (
    (loop._Training, "_outputs", Killed()),
    (KernelChange, "__call__", Killed()),
    (TrainingInputs, "smoothness", RuntimeError("no second derivative")),  # the linearization is trained all the same
    (trained_cells, "group_updates", Killed()),
    (Work, "write_arrays", Killed()),
    (compare, "output_difference", Killed()),
)
"""Actions after the last update, in this order, and their failures."""


def swept(folder: Path, model: Path, **changes: Any) -> Path:
    return make_sweep(folder, {"finetune": TRAINING | changes, "grid.layer_sets": [{"layers": [[1]]}]}, model=model)


@pytest.mark.parametrize("patience", [None, 1])
def test_what_fails_after_training_costs_no_step(
    patience: int | None, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    whole, broken = (
        swept(tmp_path / name, tiny_model, early_stopping_patience=patience) for name in ("whole", "broken")
    )
    made: list[int] = []
    batches = loop.step_batches

    def counted(settings: Any, lengths: Any, step: int, *others: Any) -> Any:
        made.append(step)
        return batches(settings, lengths, step, *others)

    monkeypatch.setattr(loop, "step_batches", counted)
    assert not run_spec(whole).report.failures
    needed = list(made)
    last = needed[: needed.index(0, 1)][-1]  # of the model; the linearization follows
    made.clear()

    for owner, name, error in LAST_STEPS:
        with monkeypatch.context() as patch:
            failed = fails_once(patch, owner, name, error, lambda: bool(made) and made[-1] == last)
            if isinstance(error, Killed):
                with pytest.raises(Killed):
                    run_spec(broken)
            else:
                assert run_spec(broken).report.failures
            assert failed, name
    assert not run_spec(broken).report.failures
    assert made == needed
    assert_same_tables(broken.parent / "results", numbers(whole.parent / "results"))


def fails_once(
    patch: pytest.MonkeyPatch, owner: Any, name: str, error: BaseException, is_time: Callable[[], bool]
) -> list[str]:
    """Have a function or method fail the first time that it is time; return a list that then holds its name."""
    failed: list[str] = []
    original = getattr(owner, name)

    def failing(*arguments: Any, **options: Any) -> Any:
        if is_time() and not failed:
            failed.append(name)
            raise error
        return original(*arguments, **options)

    patch.setattr(owner, name, failing)
    return failed
