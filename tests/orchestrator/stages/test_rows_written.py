"""Jacobian rows as a sweep writes them: one piece a batch, read back by example, and two waits for the disk a stage."""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.scorers import build_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from ntk_dist.jacobian.batches import length_buckets
from orchestrator.spec import read_spec
from orchestrator.stages.context.tokenized import read_tokens
from orchestrator.store.arrays import ArrayReader
from orchestrator.store.stage import Stage
from orchestrator.sweep.folder import ResultsFolder
from tests.orchestrator.sweeps import make_sweep, run_spec
from tests.single_example import reference_rows

MANY_BATCHES = {"compute.batch_tokens": 16, "compute.shard_examples": 20, "grid.n_train": [30], "task.n_eval": 8}


@dataclass
class Watched:
    """A finished sweep, and how often its run wrote and waited, by file of the artifacts' folder."""

    spec: Path
    stages: list[Stage]
    writes: Counter[Path]
    syncs: Counter[Path]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Watched:
    spec = make_sweep(tmp_path_factory.mktemp("watched"), MANY_BATCHES, model=tiny_model)
    writes: Counter[Path] = Counter()
    syncs: Counter[Path] = Counter()

    def counted(name: str, into: Counter[Path]) -> Any:
        call = getattr(os, name)

        def counting(file: int, *rest: Any) -> Any:
            into[Path(f"/proc/self/fd/{file}").readlink()] += 1
            return call(file, *rest)

        return counting

    with pytest.MonkeyPatch.context() as patch:
        for name in ("write", "pwrite", "pwritev", "writev"):
            patch.setattr(os, name, counted(name, writes))
        for name in ("fsync", "fdatasync"):
            patch.setattr(os, name, counted(name, syncs))
        ending = run_spec(spec)
    assert not ending.report.failures
    below = spec.parent / "results" / "artifacts"
    own = [Counter({path: n for path, n in each.items() if path.is_relative_to(below)}) for each in (writes, syncs)]
    return Watched(spec, list(ending.plan.stages), *own)


def captures(watched: Watched) -> list[tuple[Stage, Path]]:
    """Return the stages that captured rows, each with its file."""
    folder = watched.spec.parent / "results" / "artifacts" / "capture"
    return [
        (stage, next(folder.glob(f"{stage.stage_id}.*.safetensors")))
        for stage in watched.stages
        if stage.kind == "capture"
    ]


def batches_of(watched: Watched, stage: Stage) -> list[list[int]]:
    p = stage.parameters
    dataset = ResultsFolder(watched.spec.parent / "results").artifacts().open(*stage.inputs["dataset"][0])
    tokens = read_tokens(dataset, p.split, p.start, p.stop)
    return [batch.tolist() for batch in length_buckets(tokens.lengths, batch_tokens=16, batch_size=None)]


def test_rows_are_written_in_one_piece_a_batch(watched: Watched) -> None:
    assert len(captures(watched)) == 3
    for stage, _ in captures(watched):
        batches = batches_of(watched, stage)
        assert len(batches) >= 3
        as_written = [position for batch in batches for position in batch]
        assert as_written != sorted(as_written), "so that order matters below"
        (calls,) = (n for path, n in watched.writes.items() if stage.stage_id in path.name and ".json" not in path.name)
        assert calls == len(batches) + 1, "a header, and the batches"


def test_other_arrays_are_written_in_one_piece_an_artifact(watched: Watched) -> None:
    for stage in watched.stages:
        calls = [n for path, n in watched.writes.items() if stage.stage_id in path.name and ".json" not in path.name]
        if stage.kind in ("dataset", "solve"):
            assert calls == [2], f"{stage.kind}: a header, and the arrays"


def test_a_stage_waits_for_the_disk_once_for_its_arrays_and_once_for_its_record(watched: Watched) -> None:
    for stage in watched.stages:
        calls = {path.name: n for path, n in watched.syncs.items() if stage.stage_id in path.name}
        wanted = [1] if stage.kind == "batching" else [1, 1]
        assert list(calls.values()) == wanted, f"{stage.kind}: {calls}"


def test_nothing_is_read_again_to_make_checksums(
    watched: Watched, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[str, str]] = []
    checksum = ArrayReader.checksum
    monkeypatch.setattr(
        ArrayReader,
        "checksum",
        lambda self, name, *rest: read.append((str(self.path), name)) or checksum(self, name, *rest),
    )
    stages = {stage.stage_id for stage, _ in captures(watched)}
    run_spec(make_sweep(tmp_path, MANY_BATCHES, model=tiny_model))
    assert {Path(path).parent.name for path, _ in read} >= {"capture", "gram"}
    rows = Counter((path, name) for path, name in read if Path(path).name[:24] in stages)
    assert set(rows.values()) == {1}, "each array once, when it is first used"


def test_rows_come_back_by_example_and_are_those_of_each_example_alone(watched: Watched) -> None:
    spec = read_spec(watched.spec)
    store = ResultsFolder(spec.folder).artifacts()
    scorer = build_scorer(
        ModelSettings(str(watched.spec.parent / spec.model.path), dtype="float64"),
        AdapterSettings(**spec.adapter.model_dump(exclude={"seed"})),
        HeadSettings("random"), n_outputs=2, adapter_seed=0, head_seed=0,
    )  # fmt: skip
    for stage, path in captures(watched):
        p = stage.parameters
        texts = read_tokens(store.open(*stage.inputs["dataset"][0]), p.split, p.start, p.stop)
        n = p.stop - p.start
        shard = store.open("capture", stage.stage_id)
        expected = reference_rows(lambda i, texts=texts: scorer.logits(texts.batch([i])), n, scorer.groups)
        for group, values in expected.items():
            rows = values.flatten(0, 1).numpy()
            np.testing.assert_allclose(shard.array(group), rows, rtol=1e-9, atol=1e-12)
            part = np.empty((7, 3))
            shard.rows(group)[5:12].read(part, slice(2, 5))
            assert np.array_equal(part, shard.array(group)[5:12, 2:5])
        scores = np.concatenate([scorer.logits(texts.batch([i])).detach().numpy() for i in range(n)])
        np.testing.assert_allclose(shard.array("scores"), scores, rtol=1e-9)
        assert len(ArrayReader(path).places("1.value")) == len(batches_of(watched, stage))
