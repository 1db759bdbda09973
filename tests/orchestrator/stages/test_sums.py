"""Sums of kernel blocks: the same bits whatever was summed before, and each block read once where there is room."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from orchestrator.engine.worker.execute import StageWorker, provenance
from orchestrator.spec import read_spec
from orchestrator.stages.context.blocks import sum_tiles
from orchestrator.stages.context.failures import Status
from orchestrator.stages.gram import GRAM
from orchestrator.stages.solve.sums import KernelSums, Term, summation_order
from orchestrator.store.artifacts import Artifact, ArtifactStore, layout_of
from orchestrator.store.stage import Stage
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.layer_sets import HEAD
from tests.orchestrator.sweeps import make_sweep, run_spec
from tests.tiny_models import save_tiny

STORED = ("0.q", "0.v", "1.q", "1.v", "2.q", "2.v", HEAD)
SHARDS = ((0, 4), (4, 7))
SIZE = 13  # of 14 rows, for a training set may end within a shard


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> list[Artifact]:
    """Tiles of a symmetric kernel, on and below the diagonal, of seven examples with two rows each."""
    return made_tiles(tmp_path_factory.mktemp("tiles"), symmetric=True)


def made_tiles(folder: Path, *, symmetric: bool) -> list[Artifact]:
    store, draw = ArtifactStore(folder), np.random.default_rng(0)
    found = []
    for rows in SHARDS:
        for columns in SHARDS[: SHARDS.index(rows) + 1] if symmetric else SHARDS:
            shape = tuple(2 * (stop - start) for start, stop in (rows, columns))
            arrays = {group: 10.0 ** draw.uniform(-8, 8, shape) for group in STORED}
            if symmetric and rows == columns:
                arrays = {group: np.tril(block) + np.tril(block, -1).T for group, block in arrays.items()}
            stage = Stage(GRAM, {"rows": rows, "columns": columns})
            with store.new_arrays(stage, layout_of(arrays)) as file:
                file.write(arrays)
                store.publish(stage, {"rows": rows, "columns": columns}, provenance(stage, 1, 0.0), file)
            found.append(store.read("gram", stage.stage_id))
    return found


def summed(sums: KernelSums, tiles: list[Artifact], terms: tuple[Term, ...]) -> np.ndarray:
    return sums.square(tiles, terms, SIZE, 2, symmetric=True)


def one_by_one(tiles: list[Artifact], terms: tuple[Term, ...]) -> np.ndarray:
    """Add whole matrices up from scratch, those of a layer and then layers, in order."""
    total = np.zeros((SIZE, SIZE))
    for term in terms:
        layer = np.zeros((SIZE, SIZE))
        for group in term:
            layer = layer + sum_tiles(tiles, [group], (SIZE, SIZE), 2)
        total = total + layer
    return total


FIRST, SECOND, THIRD = ("0.q", "0.v"), ("1.q", "1.v"), ("2.q", "2.v")

SETS: list[tuple[Term, ...]] = [
    ((HEAD,), FIRST),
    ((HEAD,), FIRST, SECOND),
    ((HEAD,), FIRST, SECOND, THIRD),
    (THIRD,),
    (THIRD, SECOND),
    (("0.q",),),
    (("0.q",), ("1.q",)),
    (SECOND,),
    ((HEAD,), FIRST),
]


@pytest.mark.parametrize("room", [0, 3000, 10**9])
@pytest.mark.parametrize("order", [lambda sets: sets, lambda sets: sets[::-1]], ids=["forwards", "backwards"])
def test_sums_have_the_bits_of_sums_from_scratch(
    room: int, order: Callable[[list[tuple[Term, ...]]], list[tuple[Term, ...]]], tiles: list[Artifact]
):
    sums = KernelSums()
    for groups in order(SETS):
        sums.use("a problem", room)
        found = summed(sums, tiles, groups)
        np.testing.assert_array_equal(found, one_by_one(tiles, groups))
        assert found.flags.f_contiguous
        found[:] = np.nan  # a decomposition overwrites it


def test_sums_of_an_unsymmetric_kernel_and_of_rows_for_evaluation_are_whole(tmp_path: Path):
    tiles, sums = made_tiles(tmp_path, symmetric=False), KernelSums()
    sums.use("a problem", 10**9)
    for terms in SETS:
        expected = one_by_one(tiles, terms)
        np.testing.assert_array_equal(sums.square(tiles, terms, SIZE, 2, symmetric=False), expected)
        rows = sums.rows(tiles, terms, (SIZE, SIZE), 2)
        np.testing.assert_array_equal(rows, expected)
        rows[:] = np.nan  # whoever asked for them may keep them, while others are summed


def test_of_a_symmetric_kernel_strips_from_the_diagonal_on_are_enough(
    tiles: list[Artifact], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("orchestrator.stages.solve.cuts.STRIP_ROWS", 3)
    sums = KernelSums()
    for terms in SETS * 2:
        sums.use("a problem", 10**9)
        np.testing.assert_array_equal(np.tril(summed(sums, tiles, terms)), np.tril(one_by_one(tiles, terms)))


def test_rows_that_are_borrowed_are_those_that_are_kept(tmp_path: Path):
    tiles, sums = made_tiles(tmp_path, symmetric=False)[:1], KernelSums()
    sums.use("a problem", 10**9)
    for terms in SETS:
        kept = sums.rows(tiles, terms, (8, 8), 2)
        np.testing.assert_array_equal(sums.rows(tiles, terms, (8, 8), 2, borrowed=True), kept)


def test_sums_of_another_problem_are_not_continued(tiles: list[Artifact]):
    sums = KernelSums()
    for problem, shown in (("one", tiles), ("other", tiles[:1])):
        sums.use(problem, 10**9)
        np.testing.assert_array_equal(summed(sums, shown, (FIRST, SECOND)), one_by_one(shown, (FIRST, SECOND)))


def test_each_block_is_read_once_along_layers_prefixes_and_suffixes(
    tiles: list[Artifact], monkeypatch: pytest.MonkeyPatch
):
    read: list[str] = []
    array = Artifact.array
    monkeypatch.setattr(Artifact, "array", lambda self, name: (read.append(name), array(self, name))[1])
    sums, layers = KernelSums(), (FIRST, SECOND, THIRD)
    sums.use("a problem", 10**9)
    for stop in (1, 2, 3):
        for terms in ((layers[stop - 1],), layers[:stop], layers[::-1][:stop]):
            summed(sums, tiles[:1], terms)
    assert sorted(read) == sorted(STORED[:-1])


def test_no_more_is_held_than_there_is_room_for(tiles: list[Artifact]):
    sums = KernelSums()
    for room in (10**6, 5000, 1300, 0):
        sums.use("a problem", room)
        for groups in SETS:
            summed(sums, tiles, groups)
            held = sum(
                block.nbytes for each in (sums._sums, sums._layers) for blocks in each.values() for block in blocks
            )
            assert held <= room
            assert held or room < 8 * SIZE * SIZE


@pytest.mark.parametrize(
    ("groups", "order"),
    [
        (("0.q", "0.v", "1.q", HEAD), ((HEAD,), FIRST, ("1.q",))),
        (("1.q", "2.q", "2.v", HEAD), ((HEAD,), THIRD, ("1.q",))),
        (("1.q", "1.v"), (SECOND,)),
        (STORED[:-1], (FIRST, SECOND, THIRD)),
        ((HEAD,), ((HEAD,),)),
    ],
)
def test_prefixes_begin_at_the_first_layer_and_suffixes_at_the_last(groups: tuple[str, ...], order: tuple[Term, ...]):
    assert summation_order(groups, STORED) == order


def test_the_order_of_stages_and_their_workers_change_no_bit(tmp_path: Path):
    """A worker that goes from layer set to layer set, against one for each, the last layer set first."""
    model = save_tiny("bert", tmp_path / "model", layers=4, hidden=8)
    spec = make_sweep(tmp_path, {"grid.layer_sets": ["each_layer", "prefixes", "suffixes"]}, model=model)
    stages = [stage for stage in run_spec(spec).plan.stages if stage.kind == "solve"]
    folder = ResultsFolder(read_spec(spec).folder)
    before = list(checksums(folder, stages))
    for stage in stages:
        folder.artifacts().set_aside("solve", stage.stage_id)
    for stage in reversed(stages):
        assert StageWorker(folder.existing(), folder).execute(stage).status is Status.FINISHED
    assert list(checksums(folder, stages)) == before


def checksums(folder: ResultsFolder, stages: list[Stage]) -> Iterator[dict[str, bytes]]:
    for stage in stages:
        artifact = folder.artifacts().read("solve", stage.stage_id)
        yield {name: np.array(artifact.array(name)).tobytes() for name in artifact.names()}
