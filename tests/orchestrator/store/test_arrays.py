"""Array files: the safetensors format, laid out here so that rows can be written in any order."""

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file, save_file
from xxhash import xxh3_128

from orchestrator.errors import StorageError
from orchestrator.store.arrays import HEADER, ArrayFile, ArrayReader

DTYPES = ("float64", "float32", "int64", "int32", "uint8", "bool")
Arrays = dict[str, np.ndarray[Any, Any]]
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda name: name != "__metadata__")
ARRAYS = st.dictionaries(
    NAMES,
    st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_side=0, max_dims=3))),
    min_size=1,
    max_size=5,
)
EACH_IN_ITS_OWN_FILE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def layout(arrays: Arrays) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (array.dtype.name, array.shape) for name, array in arrays.items()}


def write(path: Path, arrays: Arrays) -> dict[str, str]:
    path.unlink(missing_ok=True)
    file = ArrayFile(path, layout(arrays))
    file.write(arrays)
    return file.finish()


def same(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> bool:
    """Tell whether two arrays have the same type, shape and bits; nan equals itself."""
    return (found.dtype, found.shape, found.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())


@given(ARRAYS)
@EACH_IN_ITS_OWN_FILE
def test_the_safetensors_library_reads_what_is_written(tmp_path: Path, arrays: Arrays) -> None:
    path = tmp_path / "file.safetensors"
    write(path, arrays)
    loaded = load_file(path)
    assert loaded.keys() == arrays.keys()
    assert all(same(loaded[name], array) for name, array in arrays.items())


@given(ARRAYS)
@EACH_IN_ITS_OWN_FILE
def test_arrays_come_back_bit_for_bit_through_memory_maps(tmp_path: Path, arrays: Arrays) -> None:
    path = tmp_path / "file.safetensors"
    write(path, arrays)
    reader = ArrayReader(path)
    assert reader.names() == list(arrays)
    for name, array in arrays.items():
        found = reader.array(name)
        assert same(found, array)
        assert not array.size or (isinstance(found, np.memmap) and not found.flags.writeable)


def test_a_file_of_the_safetensors_library_is_read(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.arange(3, dtype=np.int32)}
    save_file(arrays, tmp_path / "file.safetensors", metadata={"made": "elsewhere"})
    reader = ArrayReader(tmp_path / "file.safetensors")
    assert sorted(reader.names()) == ["a", "b"]
    assert all(same(reader.array(name), array) for name, array in arrays.items())


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12))
@EACH_IN_ITS_OWN_FILE
def test_data_begin_where_vector_instructions_want_them_whatever_the_header(tmp_path: Path, lengths: list[int]) -> None:
    path = tmp_path / "file.safetensors"
    write(path, {f"{i}-{'n' * length}": np.ones(3) for i, length in enumerate(lengths)})
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    assert header % 64 == 0
    assert path.stat().st_size == header + 24 * len(lengths)


@given(st.randoms(use_true_random=False), st.integers(1, 8), st.sampled_from(DTYPES))
@EACH_IN_ITS_OWN_FILE
def test_arrays_may_be_written_in_any_order(tmp_path: Path, order: random.Random, n: int, dtype: str) -> None:
    path = tmp_path / "file.safetensors"
    path.unlink(missing_ok=True)
    whole = {f"{i}": np.arange(i * 3).reshape(i, 3).astype(dtype) for i in range(n)}
    names = order.sample(sorted(whole), n)
    first = order.randint(0, n)
    file = ArrayFile(path, layout(whole))
    for some in (names[:first], names[first:]):
        file.write({name: whole[name] for name in some})
    sums = file.finish()
    reader = ArrayReader(path)
    assert all(same(reader.array(name), array) for name, array in whole.items())
    assert {name: reader.checksum(name) for name in sums} == sums


def test_arrays_of_another_memory_order_or_type_are_converted(tmp_path: Path) -> None:
    file = ArrayFile(tmp_path / "file", {"a": ("float32", (3, 4))})
    values = np.asfortranarray(np.arange(12.0).reshape(3, 4))
    file.write({"a": values[::-1]})
    file.finish()
    assert same(np.array(ArrayReader(tmp_path / "file").array("a")), values[::-1].astype(np.float32))


@pytest.mark.parametrize("shape", [(2, 4), (4, 4), (3, 5), (12,), (4, 3), (1, 3, 4)])
def test_arrays_that_do_not_fit_are_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    file = ArrayFile(tmp_path / "file", {"before": ("float64", (9,)), "a": ("float64", (3, 4)), "z": ("uint8", (9,))})
    before = (tmp_path / "file").read_bytes()
    with pytest.raises(ValueError, match="does not fit a"):
        file.write({"a": np.ones(shape)})
    assert (tmp_path / "file").read_bytes() == before


def test_a_file_is_not_finished_before_all_of_it_is_written(tmp_path: Path) -> None:
    with ArrayFile(tmp_path / "file", {"a": ("float64", (3,)), "b": ("float64", (0,))}) as file:
        file.write({"a": np.ones(3)})
        with pytest.raises(ValueError, match="b was not written whole"):
            file.finish()
        file.write({"b": np.ones(0)})
        file.finish()


def test_checksums_are_those_of_the_bytes_of_header_and_arrays(tmp_path: Path) -> None:
    arrays = {"a": np.arange(300_000.0), "b": np.zeros((0, 3)), "c": np.ones((3, 3), np.int32)}
    sums = write(tmp_path / "file", arrays)
    content = (tmp_path / "file").read_bytes()
    header = content[: 8 + int.from_bytes(content[:8], "little")]
    assert sums == {
        HEADER: xxh3_128(header).hexdigest(),
        **{name: xxh3_128(array.tobytes()).hexdigest() for name, array in arrays.items()},
    }
    reader = ArrayReader(tmp_path / "file")
    assert {name: reader.checksum(name) for name in sums} == sums


def test_an_existing_file_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError):
        ArrayFile(tmp_path / "file", {"a": ("float64", (1,))})
    assert (tmp_path / "file").read_text() == "mine"


def test_a_file_that_is_not_finished_is_gone_after_its_block(tmp_path: Path) -> None:
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(RuntimeError), ArrayFile(tmp_path / "file", {"a": ("float64", (1000,))}) as file:
        file.write({"a": np.ones(1000)})
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before


@pytest.mark.parametrize("call", ["posix_fallocate", "pwritev", "fsync"])
def test_a_full_disk_is_one_clear_error_and_leaves_no_file(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    with (
        pytest.raises(StorageError, match="the disk is full"),
        ArrayFile(tmp_path / "file", {"a": ("float64", (1000,))}) as file,
    ):
        file.write({"a": np.ones(1000)})
        file.finish()
    assert list(tmp_path.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before


def test_space_is_reserved_before_anything_is_computed(tmp_path: Path) -> None:
    with ArrayFile(tmp_path / "file", {"a": ("float64", (100_000,))}):
        assert (tmp_path / "file").stat().st_blocks * 512 >= 800_000


@pytest.mark.parametrize("length", [0, 4, 8, 20])
def test_a_file_cut_short_is_not_taken_for_an_empty_one(length: int, tmp_path: Path) -> None:
    write(tmp_path / "file", {"a": np.ones(3)})
    (tmp_path / "file").write_bytes((tmp_path / "file").read_bytes()[:length])
    with pytest.raises(ValueError):
        ArrayReader(tmp_path / "file")
