"""Artifacts: published once, whole or not at all, and every changed byte is found."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.errors import DamagedArtifactError, StorageError
from orchestrator.stages.gram import GRAM
from orchestrator.store.artifacts import Artifact, ArtifactStore, layout_of
from orchestrator.store.stage import Stage
from tests.orchestrator.store.processes import at_once

STAGE = Stage(GRAM, {"groups": ["0.query"]}, {"left": (("capture", "a" * 24),)})
KEY = (STAGE.kind, STAGE.stage_id)
ARRAYS = {
    "0.query": np.arange(12.0).reshape(4, 3),
    "1.välue": np.arange(5, dtype=np.float32),
    "none": np.zeros((3, 0)),
}


def publish(store: ArtifactStore, arrays: dict[str, np.ndarray] | None = ARRAYS, **provenance: object) -> bool:
    if arrays is None:
        return store.publish(STAGE, {"rows": [0, 4]}, provenance)
    with store.new_arrays(STAGE, layout_of(arrays)) as file:
        file.write(arrays)
        return store.publish(STAGE, {"rows": [0, 4]}, provenance, file)


def verified(store: ArtifactStore) -> Artifact:
    """Read the artifact afresh and compare every byte of it with its checksums."""
    artifact = store.read(*KEY)
    artifact.verify()
    return artifact


def files_of(store: ArtifactStore) -> list[Path]:
    return sorted(path for path in store.root.rglob("*") if path.is_file())


def test_what_is_published_is_read_back(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    assert not store.has(*KEY)
    assert publish(store, host="here")
    assert store.has(*KEY)
    assert store.finished("gram") == {STAGE.stage_id}
    artifact = verified(store)
    assert artifact.facts == {"rows": [0, 4]}
    assert artifact.provenance == {"host": "here"}
    assert artifact.names() == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(artifact.array(name), array, strict=True)
    with pytest.raises(KeyError):
        artifact.array("nothing")


def test_facts_alone_are_an_artifact_too(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    publish(store, None)
    assert verified(store).names() == []
    with pytest.raises(KeyError):
        verified(store).array("x")
    assert [path.name for path in files_of(store)] == [f"{STAGE.stage_id}.json"]


def test_the_record_says_which_stage_it_is_of(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    publish(store)
    assert json.loads(store.record_path(*KEY).read_bytes())["stage"] == STAGE.facts()


def test_nothing_is_finished_where_there_is_nothing(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "nowhere")
    assert store.finished("gram") == set()
    with pytest.raises(DamagedArtifactError):
        store.read(*KEY)
    assert not store.is_intact(*KEY)


def test_a_stage_is_not_finished_before_it_is_published_nor_after_it_was_given_up(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    with store.new_arrays(STAGE, layout_of(ARRAYS)):
        assert store.finished("gram") == set()
    assert files_of(store) == []


def test_the_first_writer_wins_and_the_second_leaves_nothing(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    assert publish(store, by="first")
    before = {path: path.read_bytes() for path in files_of(store)}
    assert not publish(store, by="second")
    assert not publish(store, {"0.query": np.ones((4, 3))}, by="third, with other numbers")
    assert {path: path.read_bytes() for path in files_of(store)} == before
    verified(store)


def publish_twenty(number: int, meet: Callable[[], None], folder: Path, same: bool) -> list[bool]:
    won = []
    for attempt in range(20):
        arrays = {"x": np.full((50, 50), 0.0 if same else number)}
        store = ArtifactStore(folder / str(attempt))
        meet()
        won.append(publish(store, arrays, by=number))
    return won


@pytest.mark.parametrize("same", [True, False], ids=["the same numbers", "other numbers"])
def test_of_many_processes_that_finish_a_stage_at_once_one_wins_with_its_own_arrays(same: bool, tmp_path: Path) -> None:
    for attempt, won in enumerate(zip(*at_once(6, publish_twenty, tmp_path, same), strict=True)):
        assert sorted(won) == [False] * 5 + [True]
        store = ArtifactStore(tmp_path / str(attempt))
        artifact, winner = verified(store), won.index(True)
        assert artifact.provenance == {"by": winner}
        assert (artifact.array("x") == (0.0 if same else winner)).all()
        assert len(files_of(store)) == 2, "a record and its arrays; what the others wrote is gone"


def test_arrays_left_by_a_process_that_died_before_its_record_do_no_harm(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    publish(store)
    arrays = next(path for path in files_of(store) if path.suffix == ".safetensors")
    store.record_path(*KEY).unlink()
    content = arrays.read_bytes()
    arrays.write_bytes(content[:-3])
    assert store.finished("gram") == set()
    assert publish(store)
    assert arrays.read_bytes() == content
    verified(store)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a store with one artifact; nobody changes it."""
    root = tmp_path_factory.mktemp("store")
    publish(ArtifactStore(root), host="here", seconds=1e-05)
    return root


@given(st.data())
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_byte_anywhere_in_any_file_is_found(template: Path, tmp_path: Path, data: st.DataObject) -> None:
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    store = ArtifactStore(tmp_path)
    verified(store)
    path = data.draw(st.sampled_from(files_of(store)), label="file")
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1), label="position")
    content[position] ^= data.draw(st.integers(1, 255), label="flip")
    path.write_bytes(content)
    assert not store.is_intact(*KEY)
    with pytest.raises(DamagedArtifactError, match="`ntksweep run` sets it aside and computes it again"):
        verified(store)


@pytest.mark.parametrize("kept", [0, 0.5, 0.99])
@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_a_file_cut_short_or_lost_is_found(suffix: str, kept: float, template: Path, tmp_path: Path) -> None:
    store = ArtifactStore(shutil.copytree(template, tmp_path / "store"))
    path = next(path for path in files_of(store) if path.suffix == suffix)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    assert not store.is_intact(*KEY)
    path.unlink()
    assert not store.is_intact(*KEY)
    with pytest.raises(DamagedArtifactError, match=rf"{re.escape(path.name)}.*: No such file"):
        verified(store)


def test_an_array_is_compared_with_its_checksum_when_it_is_first_asked_for(template: Path, tmp_path: Path) -> None:
    store = ArtifactStore(shutil.copytree(template, tmp_path / "store"))
    path = next(path for path in files_of(store) if path.suffix == ".safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # the last byte of `1.välue`
    path.write_bytes(content)
    artifact = store.open(*KEY)
    artifact.array("0.query")
    for _ in range(2):  # it is not forgotten
        with pytest.raises(DamagedArtifactError, match=r"1\.välue does not match"):
            artifact.array("1.välue")


def test_arrays_that_are_read_together_are_compared_and_aligned_as_if_they_were_mapped(tmp_path: Path) -> None:
    """A sum of the same numbers has the same bits only from the same alignment."""
    draw, store = np.random.default_rng(0), ArtifactStore(tmp_path)
    arrays = {f"{size}": draw.standard_normal(size) for size in (1, 3, 5, 0, 8, 200_000)}
    publish(store, arrays)
    read = store.read(*KEY).arrays(list(arrays)[::-1])
    mapped = store.open(*KEY)
    mapped.verify()
    for name, values in arrays.items():
        np.testing.assert_array_equal(read[name], values)
        assert not read[name].flags.writeable
        if values.size:
            assert (read[name].ctypes.data - mapped.array(name).ctypes.data) % 64 == 0
    path = next(path for path in files_of(store) if path.suffix == ".safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedArtifactError, match="200000 does not match"):
        store.read(*KEY).arrays(list(arrays))


def test_arrays_that_another_run_took_away_in_the_meantime_are_damage_not_a_crash(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    publish(store)
    artifact = store.open(*KEY)
    artifact.verify("0.query")
    ArtifactStore(tmp_path).set_aside(*KEY)
    for name in ("0.query", "1.välue"):  # verified before, and not yet
        with pytest.raises(DamagedArtifactError):
            artifact.array(name)


def test_what_is_set_aside_is_unfinished_and_kept_for_whoever_wants_to_look(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    publish(store, by="first")
    store.open(*KEY)
    before = {path.name: path.read_bytes() for path in files_of(store)}
    store.set_aside(*KEY)
    assert store.finished("gram") == set()
    assert {path.name: path.read_bytes() for path in files_of(store)} == before
    assert all(path.parent == tmp_path / "damaged" / "gram" for path in files_of(store))
    assert publish(store, by="second")
    assert store.open(*KEY).provenance == {"by": "second"}
    store.set_aside(*KEY)
    store.set_aside(*KEY)  # by two runs at once: the second finds nothing
    assert store.finished("gram") == set()


def test_setting_aside_leaves_other_stages_alone(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    other = Stage(GRAM, {"groups": ["1.query"]})
    publish(store)
    store.publish(other, {}, {})
    store.set_aside(*KEY)
    assert store.finished("gram") == {other.stage_id}


def test_a_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    store = ArtifactStore(tmp_path)
    monkeypatch.setattr("orchestrator.store.files.os.fsync", full)
    with pytest.raises(StorageError, match="the disk is full"):
        publish(store)
    assert files_of(store) == []
    monkeypatch.undo()
    assert publish(store)


def test_a_header_is_compared_with_its_checksum_before_its_shapes_are_believed(template: Path, tmp_path: Path) -> None:
    store = ArtifactStore(shutil.copytree(template, tmp_path / "store"))
    path = next(path for path in files_of(store) if path.suffix == ".safetensors")
    content = path.read_bytes()
    assert content.count(b'"shape":[4,3]') == 1
    path.write_bytes(content.replace(b'"shape":[4,3]', b'"shape":[3,4]'))
    with pytest.raises(DamagedArtifactError):
        store.open(*KEY)


def test_a_store_that_is_removed_while_an_artifact_is_written_is_told(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    with (
        pytest.raises(StorageError, match="it or its folder was removed meanwhile"),
        store.new_arrays(STAGE, layout_of(ARRAYS)) as file,
    ):
        file.write(ARRAYS)
        shutil.rmtree(tmp_path / "store")
        store.publish(STAGE, {"rows": [0, 4]}, {}, file)
