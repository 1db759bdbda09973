"""How far the trainings are that run now: a small file each, which its worker replaces about once a second.

It is neither artifact nor checkpoint: only `status` and progress bars read it, and losing it costs nothing.
"""

import json
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.errors import StorageError
from orchestrator.store.files import make_folder, read_plain, replace

WRITTEN_EVERY = 1.0
"""Seconds between two writings; one takes about 0.1 ms on a local disk."""

Losses = Mapping[int, float]
"""Losses by the numbers of cells; those of cells that have ended are missing."""


@dataclass(frozen=True)
class TrainingProgress:
    """How far a training is.

    Attributes:
        label: what is trained, for people.
        steps: updates that it makes.
        epochs: passes over the training examples that these are.
        step: updates made.
        losses: of each cell, mean over the examples of the last update, before it.
        evaluated_at: updates made before the last evaluation.
        train_losses, eval_losses: of each cell at the last evaluation, mean over all examples.
        resumed_at: updates made before its process took it up, where another one had begun it.
    """

    label: str
    steps: int
    epochs: float
    step: int = 0
    losses: Losses = field(default_factory=dict)
    evaluated_at: int | None = None
    train_losses: Losses = field(default_factory=dict)
    eval_losses: Losses = field(default_factory=dict)
    resumed_at: int = 0

    @property
    def epoch(self) -> float:
        """Passes over the training examples made."""
        return self.epochs * self.step / self.steps if self.steps else self.epochs


class ProgressFile:
    """The progress of one training, as its worker writes it.

    Args:
        path: the file.
        label: see `TrainingProgress`, as are the others.
        steps: see there.
        epochs: see there.
    """

    def __init__(self, path: Path, label: str, steps: int, epochs: float) -> None:
        self._path = path
        self._known: dict[str, Any] = {"label": label, "steps": steps, "epochs": epochs}
        self._next = 0.0

    def stepped(self, step: int, losses: Losses) -> None:
        """Note an update that was made, and the losses before it."""
        self._known.setdefault("resumed_at", step - 1)
        now = time.monotonic()
        if now >= self._next:
            self._write(now, step=step, losses=_finite(losses))

    def evaluated(self, step: int, train_losses: Losses, eval_losses: Losses) -> None:
        """Note an evaluation."""
        self._known.setdefault("resumed_at", step)
        found = {"train_losses": _finite(train_losses), "eval_losses": _finite(eval_losses)}
        self._write(time.monotonic(), step=step, evaluated_at=step, **found)

    def _write(self, now: float, **news: Any) -> None:
        self._known |= news
        self._next = now + WRITTEN_EVERY
        with suppress(StorageError):  # whatever is wrong with the disk, the stage finds out when it publishes
            make_folder(self._path.parent)
            replace(self._path, json.dumps(self._known).encode(), durable=False)

    def remove(self) -> None:
        """Remove the file."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def progress_of(path: Path) -> TrainingProgress | None:
    """Return the progress that a file holds; None if it holds none, as before the first step."""
    try:
        facts = json.loads(read_plain(path))
        for name in ("losses", "train_losses", "eval_losses"):
            facts[name] = {int(cell): float(loss) for cell, loss in facts.get(name, {}).items()}
        found = TrainingProgress(**facts)
        return found if isinstance(found.label, str) and 0 <= found.step <= found.steps else None
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def to_json(progress: TrainingProgress) -> dict[str, Any]:
    """Return everything as JSON."""
    return asdict(progress) | {"epoch": progress.epoch}


def _finite(losses: Losses) -> dict[int, float]:
    return {cell: float(loss) for cell, loss in losses.items() if math.isfinite(loss)}
