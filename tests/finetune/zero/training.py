"""Work of the processes of a group in tests of training: they train cells, stop, go on, die."""

import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from finetune.analysis.updates import group_updates
from finetune.errors import ProcessGroupError
from finetune.model.prefix import PrefixCache
from finetune.model.scorer import Scorer
from finetune.parallel.process_group import ProcessGroup
from finetune.parallel.processes import joined_group
from finetune.scorers import build_scorer
from finetune.settings import ShardingSettings
from finetune.training.checkpoint import Checkpoint, ProcessGroupCheckpoint
from finetune.training.data_parallel import DataParallelModel
from finetune.training.kernel_change import KernelChange
from finetune.training.linearized_products import LinearizedProducts
from finetune.training.loop import train_cells
from finetune.training.origins import Origin, differing_weights, starting_from
from finetune.training.run import Arrays, CellStatus, Observer, TrainingRun
from finetune.training.settings import Cell, TrainingSettings
from finetune.training.stacked import StackedModel
from tests.finetune.training.problems import coded_targets, flat, texts_of
from tests.finetune.zero.capturing import Case

Found = dict[str, np.ndarray]


@dataclass(frozen=True)
class Training:
    """A model with adapter and head, and how cells are trained in it.

    Attributes:
        case: the model.
        settings: how they are trained.
        lowest: the lowest trained layer; the states below it are kept, unless it is 0.
        seeds: of adapter, head and order; each has cells of its own in the same model.
        rates: learning rate of each of a seed's cells.
        followed: examples whose kernel is followed.
    """

    case: Case
    settings: TrainingSettings
    lowest: int = 0
    seeds: tuple[int, ...] = (1,)
    rates: tuple[float, ...] = (0.01, 0.02)
    followed: int = 0

    def scorers(self, build: Callable[..., Any], dtype: str = "float32") -> list[Any]:
        model, adapter, head = replace(self.case, dtype=dtype).settings()
        return [build(model, adapter, head, n_outputs=2, adapter_seed=seed, head_seed=seed) for seed in self.seeds]

    def groups(self, scorer: Scorer) -> list[str]:
        return [name for name in scorer.trained if name == "head" or int(name.partition(".")[0]) >= self.lowest]

    def starts(self, scorers: Sequence[Scorer], group: ProcessGroup) -> list[Origin]:
        texts, starts = texts_of(Path(self.case.model)), []
        for other in scorers:
            weights, prefixes = differing_weights(scorers[0], other), {}
            with starting_from(weights):
                for split in texts if self.lowest else ():
                    prefixes[split] = PrefixCache(scorers[0], self.lowest, self.groups(other))
                    prefixes[split].fill(texts[split], batch_tokens=16, process_group=group)
            starts.append(Origin(texts, weights, prefixes))
        return starts

    def origins(self) -> list[int]:
        return [origin for origin in range(len(self.seeds)) for _ in self.rates]

    def run(self, model: StackedModel, dtype: str, **options: Any) -> TrainingRun:
        cells = [Cell(10.0**-number, rate) for _ in self.seeds for number, rate in enumerate(self.rates)]
        targets = [coded_targets(getattr(torch, dtype))] * len(self.seeds)
        return train_cells(model, targets, self.settings, cells, seeds=self.seeds, **options)

    def observer(self, scorer: Scorer, **options: Any) -> Observer | None:
        if not self.followed:
            return None
        texts = texts_of(Path(self.case.model))["train"]
        passes = [partial(scorer.logits, texts.batch(each)) for each in scorer.at_once(range(self.followed))]
        trained = {name: scorer.trained[name] for name in self.groups(scorer)}
        return KernelChange(passes, trained, trained, **options)


def run_whole(training: Training, dtype: str) -> Found:
    """Train in one process, with the whole model."""
    scorers = training.scorers(build_scorer, dtype)
    groups, starts = training.groups(scorers[0]), training.starts(scorers, ProcessGroup())
    model = StackedModel(scorers[0], groups, starts, "full", training.origins())
    return found_in(training, scorers[0], training.run(model, dtype, observer=training.observer(scorers[0])))


def run_shared(
    training: Training, sharded: Sequence[Scorer], group: ProcessGroup, checkpoint: Checkpoint | None = None
) -> Found:
    """Train in the processes of a group, with its models."""
    groups, starts = training.groups(sharded[0]), training.starts(sharded, group)
    model = DataParallelModel(sharded[0], groups, starts, "full", training.origins(), process_group=group)
    observer = training.observer(sharded[0], before_backward=sharded[0].before_backward)
    return found_in(training, sharded[0], training.run(model, "float32", observer=observer, checkpoint=checkpoint))


def found_in(training: Training, scorer: Scorer, run: TrainingRun) -> Found:
    """Return what a run found: the displacement that each cell ends with, what it means, and the trajectory."""
    seen, statuses, updates = run.trajectory, list(CellStatus), []
    for cell in run.cells:
        found = group_updates(scorer, cell.kept, training.groups(scorer))
        updates.append([(update.update_norm, update.weight_norm) for update in found])
    return {
        "train outputs": np.stack(seen.train_outputs),
        "eval outputs": np.stack(seen.eval_outputs),
        "distances": np.stack(seen.distances),
        "ended": np.array(
            [[statuses.index(cell.status), cell.kept_evaluation, cell.failed_step or 0] for cell in run.cells]
        ),
        "updates": np.array(updates),
        **{name: np.stack(values) for name, values in seen.observed.items()},
        **{f"displacement {number}": flat(cell.kept) for number, cell in enumerate(run.cells)},
    }


# --- what a process does


@dataclass
class FileKept:
    """A checkpoint in a file, saved at every step."""

    path: Path

    def load(self) -> Arrays | None:
        return dict(load_file(self.path)) if self.path.exists() else None

    def due(self) -> bool:
        return True

    def save(self, arrays: Arrays) -> None:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, self.path)


class EndingCheckpoint(ProcessGroupCheckpoint):
    """The checkpoint of a group that does something else after the fifth time that it is saved."""

    def __init__(self, group: ProcessGroup, path: Path, then: Callable[[], None]) -> None:
        super().__init__(group, FileKept(path) if group.leads else None)
        self._saves, self._then = 0, then

    def save(self, arrays: Arrays) -> None:
        super().save(arrays)
        self._saves += 1
        if self._saves == 5:
            self._then()


def train_all(trainings: Mapping[str, Training], one: str, folder: Path) -> None:
    """Leave in files what each training found, and one of them again and after a stop; at last the second one dies."""
    torch.set_num_threads(1)
    with joined_group() as group:

        def train(name: str, checkpoint: Checkpoint | None = None) -> None:
            found = run_shared(training, sharded, group, checkpoint)
            save_file(found, folder / f"{name}-{group.rank}.safetensors")

        # The last one comes again and again.
        for name in sorted(trainings, key=one.__eq__):
            training = trainings[name]
            sharded = training.scorers(partial(build_scorer, sharding=ShardingSettings(group.size)))
            train(name)
        train("again")
        with pytest.raises(KeyboardInterrupt):
            train("", EndingCheckpoint(group, folder / "kept", stop))
        train("stopped", ProcessGroupCheckpoint(group, FileKept(folder / "kept") if group.leads else None))
        for name, refused in (("apart", move_apart), ("products", take_products)):
            said = refused(training, sharded[0], group)
            (folder / f"{name}-{group.rank}.json").write_text(json.dumps(said))
        train("", EndingCheckpoint(group, folder / "killed", die if group.rank else go_on))


def move_apart(training: Training, sharded: Scorer, group: ProcessGroup) -> str:
    """Return what is said where the second process has moved a weight by itself, ever so little."""
    starts = [Origin(texts_of(Path(training.case.model)))]
    model = DataParallelModel(sharded, ["head"], starts, "full", [0, 0], process_group=group)
    if group.rank == 1:
        next(iter(model.displacements[1].values())).data.view(-1)[-1] = 1e-30
    with pytest.raises(ProcessGroupError) as raised:
        model.outputs("eval", [np.array([0])], [0, 1])
    return str(raised.value)


def take_products(_training: Training, sharded: Scorer, _group: ProcessGroup) -> str:
    """Return what is said where products with the Jacobian are asked for."""
    with pytest.raises(ProcessGroupError) as raised:
        LinearizedProducts(sharded, ["head"], {}, "full", 1, initial={})
    return str(raised.value)


def stop() -> None:
    raise KeyboardInterrupt


def go_on() -> None:
    pass


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
