"""Arrays that come batch after batch: one write a batch, and each array back in the order of the examples."""

import os
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from xxhash import xxh3_128

from orchestrator.errors import DamagedArtifactError
from orchestrator.stages.capture import CAPTURE
from orchestrator.store.arrays import BATCHES, HEADER, ArrayFile, ArrayReader
from orchestrator.store.artifacts import ArtifactStore
from orchestrator.store.batched import BatchedLayout, BatchedRows
from orchestrator.store.stage import Stage

Array = np.ndarray[Any, Any]
EACH_IN_ITS_OWN_FILE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def layouts(draw: st.DrawFn) -> BatchedLayout:
    positions = draw(st.permutations(range(draw(st.integers(1, 12)))))
    ends = [*sorted(draw(st.sets(st.integers(1, len(positions))))), len(positions)]
    batches = [positions[start:end] for start, end in zip([0, *ends], ends, strict=False) if end > start]
    shapes = st.tuples(st.integers(1, 3), st.integers(0, 5))
    arrays = draw(st.dictionaries(st.text("ab.é_", min_size=1), shapes, min_size=1, max_size=4))
    return BatchedLayout(draw(st.sampled_from(["float64", "float32", "float16"])), batches, arrays)


def numbers(layout: BatchedLayout) -> dict[str, Array]:
    """Return arrays that fit a layout, every number another one, by example."""
    found, first = {}, 0
    for name in layout.arrays:
        rows, columns = layout.shape(name)
        found[name] = np.arange(first, first + rows * columns).reshape(rows, columns).astype(layout.dtype)
        first += rows * columns
    return found


def rows_of(arrays: dict[str, Array], layout: BatchedLayout, number: int) -> dict[str, Array]:
    """Return what a batch has of each array, found example by example."""
    found = {}
    for name, (rows, columns) in layout.arrays.items():
        by_example = arrays[name].reshape(len(arrays[name]) // rows, rows, columns)
        found[name] = np.concatenate([by_example[position] for position in layout.batches[number]])
    return found


def write(path: Path, layout: BatchedLayout, order: list[int] | None = None) -> tuple[dict[str, Array], dict[str, str]]:
    path.unlink(missing_ok=True)
    arrays = numbers(layout)
    file = ArrayFile(path, {"more": ("int64", (3,))}, layout)
    for number in order or range(len(layout.batches)):
        file.write_batch(number, rows_of(arrays, layout, number))
    file.write({"more": np.arange(3)})
    return arrays, file.finish()


@given(layouts(), st.randoms(use_true_random=False))
@EACH_IN_ITS_OWN_FILE
def test_each_array_comes_back_by_example_whatever_the_order_of_batches(
    tmp_path: Path, layout: BatchedLayout, draw: random.Random
) -> None:
    order = draw.sample(range(len(layout.batches)), len(layout.batches))
    arrays, sums = write(tmp_path / "file", layout, order)
    reader = ArrayReader(tmp_path / "file")
    assert reader.names() == ["more", *arrays]
    for name, expected in arrays.items():
        found = reader.array(name)
        assert (found.dtype, found.shape, found.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())
    assert np.array_equal(reader.array("more"), np.arange(3))
    assert {name: reader.checksum(name) for name in sums} == sums
    assert sums.keys() == {HEADER, "more", *arrays}


@given(layouts(), st.integers(-1, 40), st.integers(0, 40), st.integers(0, 5), st.integers(0, 5))
@EACH_IN_ITS_OWN_FILE
def test_parts_of_rows_are_those_of_the_whole_array(
    tmp_path: Path, layout: BatchedLayout, start: int, stop: int, first: int, last: int
) -> None:
    arrays, _ = write(tmp_path / "file", layout)
    for name, expected in arrays.items():
        rows = ArrayReader(tmp_path / "file").rows(name)
        assert isinstance(rows, BatchedRows)
        wanted = expected[start:stop][1:, first:last].astype(np.float64)
        found = np.full(wanted.shape, np.nan)
        rows[start:stop][1:].read(found, slice(first, last))
        assert rows[start:stop][1:].shape == expected[start:stop][1:].shape
        assert np.array_equal(found, wanted)


def test_the_safetensors_library_and_the_header_tell_what_is_where(tmp_path: Path) -> None:
    layout = BatchedLayout("float32", [[2, 0], [1]], {"scores": (1, 2), "0.query": (2, 3)})
    arrays, _ = write(tmp_path / "file", layout)
    loaded = load_file(tmp_path / "file")[BATCHES]
    by_hand = [rows_of(arrays, layout, number)[name].ravel() for number in (0, 1) for name in layout.arrays]
    assert np.array_equal(loaded, np.concatenate(by_hand))
    assert (
        b'{\\"batches\\":[[2,0],[1]],\\"arrays\\":{\\"scores\\":[1,2],\\"0.query\\":[2,3]}}'
        in (tmp_path / "file").read_bytes()
    )


def test_a_batch_is_written_by_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = BatchedLayout("float32", [[2, 0], [1], [4, 3]], {f"{i}.query": (2, 3) for i in range(200)})
    arrays = numbers(layout)
    calls = []
    pwritev = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda *given: calls.append(given[2]) or pwritev(*given))
    with ArrayFile(tmp_path / "file", {}, layout) as file:
        calls.clear()  # of the header
        for number in range(3):
            file.write_batch(number, rows_of(arrays, layout, number))
        file.finish()
        assert len(calls) == len(set(calls)) == 3


def test_what_the_system_takes_a_part_of_is_written_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = BatchedLayout("float64", [[1, 0], [2]], {f"{i}": (1, 3) for i in range(1500)})
    pwritev = os.pwritev

    def reluctant(file: int, buffers: list[memoryview], offset: int) -> int:
        assert len(buffers) <= 1024
        return pwritev(file, [b"".join(buffers)[:1001]], offset)

    monkeypatch.setattr(os, "pwritev", reluctant)
    arrays, sums = write(tmp_path / "file", layout)
    reader = ArrayReader(tmp_path / "file")
    assert all(np.array_equal(reader.array(name), array) for name, array in arrays.items())
    assert {name: reader.checksum(name) for name in sums} == sums


def test_the_checksum_of_an_array_in_batches_is_that_of_its_parts(tmp_path: Path) -> None:
    several = BatchedLayout("float64", [[1], [0, 2]], {"a": (1, 2), "b": (2, 3)})
    arrays, sums = write(tmp_path / "several", several)
    parts = [xxh3_128(rows_of(arrays, several, number)["b"].tobytes()).hexdigest() for number in (0, 1)]
    assert sums["b"] == xxh3_128("".join(parts).encode()).hexdigest()
    alone = BatchedLayout("float64", [[1, 0, 2]], several.arrays)
    arrays, sums = write(tmp_path / "alone", alone)
    assert sums["b"] == xxh3_128(rows_of(arrays, alone, 0)["b"].tobytes()).hexdigest()


def test_processes_that_write_a_file_together_make_its_checksums_together(tmp_path: Path) -> None:
    layout = BatchedLayout("float32", [[3], [0, 2], [1], [4]], {"scores": (1, 2), "0.query": (2, 30)})
    arrays, expected = write(tmp_path / "alone", layout)
    leads = ArrayFile(tmp_path / "together", {"more": ("int64", (3,))}, layout)
    follows = ArrayFile(tmp_path / "together", {"more": ("int64", (3,))}, layout, new=False)
    leads.write({"more": np.arange(3)})
    for number in range(4):
        (leads, follows)[number % 2].write_batch(number, rows_of(arrays, layout, number))
    with pytest.raises(ValueError, match="scores was not written whole"):
        leads.finish()
    follows.flush()
    leads.also_written(follows.written)
    assert leads.finish() == expected
    follows.discard()
    assert (tmp_path / "together").read_bytes() == (tmp_path / "alone").read_bytes()


@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (2, 2, 3), (12,)])
def test_what_does_not_fit_its_batch_is_refused_before_anything_is_written(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    file = ArrayFile(tmp_path / "file", {}, BatchedLayout("float64", [[0], [2, 1]], {"a": (1, 1), "b": (2, 3)}))
    before = (tmp_path / "file").read_bytes()
    with pytest.raises(ValueError, match="does not fit b"):
        file.write_batch(1, {"a": np.ones((2, 1)), "b": np.ones(shape)})
    assert (tmp_path / "file").read_bytes() == before


@pytest.mark.parametrize("name", [HEADER, "more", "a", "b"])
@pytest.mark.parametrize("batch", [0, 1])
def test_a_flipped_byte_is_found_in_the_array_that_it_is_in(name: str, batch: int, tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    stage = Stage(CAPTURE, {})
    layout = BatchedLayout("float32", [[1, 2], [0]], {"a": (1, 2), "b": (2, 3)})
    arrays = numbers(layout)
    with store.new_arrays(stage, {"more": ("int64", (3,))}, layout) as file:
        file.write({"more": np.arange(3)})
        for number in (1, 0):
            file.write_batch(number, rows_of(arrays, layout, number))
        assert store.publish(stage, {}, {}, file)
    store.read("capture", stage.stage_id).verify()
    (path,) = (tmp_path / "capture").glob("*.safetensors")
    content = bytearray(path.read_bytes())
    start, stop = ArrayReader(path).places(name)[batch if name in layout.arrays else 0]
    content[stop - 1 if batch else start] ^= 4
    path.write_bytes(content)
    for read in ("array", "rows"):
        with pytest.raises(DamagedArtifactError, match=f"{name} does not match" if name != HEADER else "is damaged"):
            getattr(store.read("capture", stage.stage_id), read)(name)
    if name != HEADER:
        for other in {"more", "a", "b"} - {name}:
            store.read("capture", stage.stage_id).array(other)


def test_every_byte_of_a_file_belongs_to_one_array(tmp_path: Path) -> None:
    write(tmp_path / "file", BatchedLayout("float16", [[1, 2], [0]], {"a": (1, 2), "b": (2, 3), "none": (1, 0)}))
    reader = ArrayReader(tmp_path / "file")
    places = sorted(place for name in (HEADER, *reader.names()) for place in reader.places(name))
    assert places[0][0] == 0 and places[-1][1] == reader.size
    assert all(before[1] == after[0] for before, after in pairwise(places))
