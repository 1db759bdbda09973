"""Work of the processes of a group in tests of memory: they build models, use and drop them, and count what stays."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from finetune.model.scorer import Scorer
from finetune.parallel.process_group import ProcessGroup
from finetune.parallel.processes import joined_group
from finetune.parallel.weights import is_sharded, local_part
from finetune.scorers import build_scorer
from finetune.settings import ShardingSettings
from finetune.zero.scorer import ShardedScorer
from tests.finetune.zero.capturing import Case

Parts = list[tuple[StorageWeakRef, int]]


@dataclass(frozen=True)
class Seen:
    """Observations of one process.

    Attributes:
        living: bytes of sharded weights that lived after each model was dropped.
        same_rows: whether the last of the models had the rows of the first, bit for bit.
        held: bytes that lived of a model that was held, and all that it had.
        dropped: bytes that lived of the one beside it.
        same_again: whether it kept its rows.
    """

    living: list[int]
    same_rows: bool
    held: tuple[int, int]
    dropped: int
    same_again: bool


def use_and_drop(cases: Mapping[str, Case], held: Case) -> Seen:
    """Use and drop models, then hold one of two."""
    torch.set_num_threads(1)
    with joined_group() as group:
        living, same_rows = drop_one_after_another(cases, group)
        return Seen(living, same_rows, *hold_one_of_two(held, group))


def drop_one_after_another(cases: Mapping[str, Case], group: ProcessGroup) -> tuple[list[int], bool]:
    """Drop models in whatever state; return the bytes that lived after each, and whether first and last are alike."""
    parts, living, rows = Parts(), [], []
    for name, case in cases.items():
        model, *others = case.settings()
        weights = replace(model, weights="random" if name == "drawn" else "pretrained")
        sharded = build_scorer(weights, *others, **case.options(), sharding=ShardingSettings(group.size))
        parts += parts_of(sharded)
        if name == "broken off":
            break_off(sharded, case)
        for _ in range(3 * (name == "probed")):
            sharded.features(case.tokens().batch([0]))
        if name != "unused":
            rows.append(rows_of(sharded, case, group))
        del sharded
        ShardedScorer.free_dropped()
        living.append(living_bytes(parts))
    first, last = rows[0], rows[-1]
    return living, all(torch.equal(first[name], values) for name, values in last.items())


def hold_one_of_two(case: Case, group: ProcessGroup) -> tuple[tuple[int, int], int, bool]:
    """Hold the first of two models; return the last three things of `Seen`."""
    sharding = ShardingSettings(group.size)
    first, second = (build_scorer(*case.settings(), **case.options(), sharding=sharding) for _ in range(2))
    parts = [parts_of(first), parts_of(second)]
    before = rows_of(first, case, group)
    rows_of(second, case, group)
    del second
    ShardedScorer.free_dropped()
    held, dropped = (living_bytes(each) for each in parts)
    after = rows_of(first, case, group)
    whole = sum(size for _, size in parts[0])
    return (held, whole), dropped, all(torch.equal(before[name], after[name]) for name in before)


def rows_of(scorer: Scorer, case: Case, group: ProcessGroup) -> dict[str, Tensor]:
    """Return the rows of this process's share of a case."""
    tokens, found = case.tokens(), dict[str, Tensor]()
    for number, (positions, _) in enumerate(group.rounds(case.batches())):
        scores, rows = scorer.rows(tokens.batch(positions), lambda logits: logits)
        found |= {f"{number}/scores": scores.contiguous()}
        found |= {f"{number}/{name}": values.contiguous() for name, values in rows.items()}
    return found


def break_off(sharded: Scorer, case: Case) -> None:
    """Have an error end a pass in the midst of the model, in all processes."""

    def fail(*_: object) -> None:
        raise MemoryError

    handle = sharded.final.register_forward_pre_hook(fail)
    with pytest.raises(MemoryError):
        sharded.rows(case.tokens().batch([0]), lambda logits: logits)
    handle.remove()


def parts_of(sharded: Scorer) -> Parts:
    """Return what this process has of the sharded weights, without keeping it, and how many bytes each takes."""
    parts = [local_part(weight).untyped_storage() for weight in sharded.model.parameters() if is_sharded(weight)]
    assert parts
    return [(StorageWeakRef(storage), storage.nbytes()) for storage in parts]


def living_bytes(parts: Parts) -> int:
    return sum(size for storage, size in parts if not storage.expired())
