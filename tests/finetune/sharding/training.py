"""What the processes of a model group do in tests of training: train cells, die, go on."""

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from finetune.adapter import check_group_names
from finetune.prefix import PrefixCache
from finetune.scorer import Scorer, build_scorer
from finetune.sharding.checkpoint import GroupCheckpoint
from finetune.sharding.processes import ModelGroup, joined_group
from finetune.sharding.scorer import ShardedScorer, build_sharded_scorer
from finetune.sharding.trainable import ShardedModel, passing_through
from finetune.targets import kernel_outputs
from finetune.training.kernel_change import KernelChange
from finetune.training.loop import Targets, train_cells
from finetune.training.origins import Origin, differing_weights, starting_from
from finetune.training.run import Arrays, Checkpoint, Observer, TrainingRun
from finetune.training.settings import Cell, TrainingSettings
from finetune.training.stacked import StackedModel
from finetune.updates import group_updates
from tests.finetune.sharding.capturing import Case
from tests.finetune.training.problems import coded_targets, texts_of

CELLS = (Cell(0.1, 0.01), Cell(1.0, 0.01), Cell(10.0, 0.02))


@dataclass(frozen=True)
class Training:
    """A model with adapter and head, and how its cells are trained.

    Attributes:
        case: the model.
        settings: how it is trained.
        lowest: the lowest trained layer, where the states below it are kept; None keeps none.
        seeds: of adapter, head and order; each has its own cells in the same model.
        followed: examples whose kernel is followed.
    """

    case: Case
    settings: TrainingSettings
    lowest: int | None = None
    seeds: tuple[int, ...] = (1,)
    followed: int = 0

    def groups(self, scorer: Scorer) -> list[str]:
        return [name for name in scorer.trained if name == "head" or int(name.split(".")[0]) >= (self.lowest or 0)]

    def origins(self) -> list[int]:
        return [origin for origin in range(len(self.seeds)) for _ in CELLS]


def build(training: Training, seed: int, dtype: str, make: Callable[..., object] = build_scorer) -> object:
    model, adapter, head = training.case.settings()
    return make(replace(model, dtype=dtype), adapter, head, n_outputs=2, adapter_seed=seed, head_seed=seed)


def run_whole(training: Training, dtype: str) -> dict[str, np.ndarray]:
    """Train in one process, with the whole model."""
    scorers = [build(training, seed, dtype) for seed in training.seeds]
    return _run(training, scorers, StackedModel, None, None, dtype, ModelGroup(0, 1))


def run_shared(training: Training, group: ModelGroup, kept: Checkpoint | None = None) -> dict[str, np.ndarray]:
    """Train in the processes of a group."""
    sharded = [build(training, seed, "float32", build_sharded_scorer) for seed in training.seeds]

    def model(_scorer: Scorer, *arguments: object) -> ShardedModel:
        return ShardedModel(sharded[0], group, *arguments)

    scorers = [passing_through(each) for each in sharded]
    return _run(
        training, scorers, model, sharded[0].before_backward, GroupCheckpoint(group, kept), "float32", group
    )  # fmt: skip


def _run(training, scorers, make, before_backward, checkpoint, dtype, group) -> dict[str, np.ndarray]:
    scorer, texts = scorers[0], texts_of(Path(training.case.model))
    groups = training.groups(scorer)
    starts = []
    for other in scorers:
        weights = differing_weights(scorer, other)
        prefixes = {}
        with starting_from(weights):
            for split, tokens in texts.items() if training.lowest else ():
                prefixes[split] = PrefixCache(scorer, training.lowest, groups)
                prefixes[split].fill(tokens, batch_tokens=16, group=group)
        starts.append(Origin(texts, weights, prefixes))
    model = make(scorer, groups, starts, "full", training.origins())
    trained = {name: scorer.trained[name] for name in groups}
    observer = None
    if training.followed:
        batch = texts["train"].batch(range(training.followed))
        observer = KernelChange(lambda: scorer.logits(batch), trained, trained, before_backward=before_backward)
    run = train_cells(
        model, [coded_targets(getattr(torch, dtype))] * len(starts), training.settings, CELLS * len(starts),
        seeds=training.seeds, checkpoint=checkpoint, observer=observer,
    )  # fmt: skip
    updates = [group_updates(scorer, cell.kept, groups) for cell in run.cells]
    return _arrays(run) | {"updates": np.array([[(u.update_norm, u.weight_norm) for u in each] for each in updates])}


def _arrays(run: TrainingRun) -> dict[str, np.ndarray]:
    """Return what a run found: the displacement that each cell ends with, and the trajectory."""
    seen = run.trajectory
    return {
        "train": np.stack(seen.train_outputs),
        "eval": np.stack(seen.eval_outputs),
        "distances": np.stack(seen.distances),
        "ended": np.array([[cell.kept_record, cell.worse, cell.failed_step or -1] for cell in run.cells]),
        **{name: np.stack(values) for name, values in seen.observed.items()},
        **{
            f"{number}.{name}": tensor.double().numpy()
            for number, cell in enumerate(run.cells)
            for name, tensor in cell.kept.items()
        },
    }


@dataclass
class FileKept:
    """A checkpoint in a file, saved at every step; after `dies_after` saves this process is killed."""

    path: Path
    dies_after: int | None = None
    saves: int = 0

    def load(self) -> Arrays | None:
        return dict(load_file(self.path)) if self.path.exists() else None

    def due(self) -> bool:
        return True

    def save(self, arrays: Arrays) -> None:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, self.path)
        self.saves += 1
        if self.saves == self.dies_after:
            os.kill(os.getpid(), signal.SIGKILL)


def train_all(trainings: Mapping[str, Training], folder: Path, again: str, killed: str) -> None:
    """Train all, leave what each found in files of this process, then train once more until a process is killed."""
    torch.set_num_threads(1)
    with joined_group() as group:
        for name, training in [*trainings.items(), ("again", trainings[again])]:
            save_file(run_shared(training, group), folder / f"{name}-{group.rank}.safetensors")
        run_shared(trainings[killed], group, FileKept(folder / "checkpoint", dies_after=5))


def go_on(training: Training, folder: Path) -> list[dict[str, np.ndarray]]:
    """Train on from where a group was killed."""
    torch.set_num_threads(1)
    with joined_group() as group:
        return run_shared(training, group, FileKept(folder / "checkpoint"))
