"""Model and data: where they are found, how a change is noticed, and what is said when they are not there."""

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import errors

from orchestrator.errors import SourceError
from orchestrator.spec import Spec
from orchestrator.sweep.sources import Source, Sources, find_sources
from tests.orchestrator.sweeps import spec_of, write_data


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with something that looks like a model and with data."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "bert"}')
    (model / "model.safetensors").write_bytes(bytes(1000))
    write_data(tmp_path / "data.parquet")
    return tmp_path


def rewrite_keeping_time(path: Path, content: bytes) -> None:
    facts = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def content(sources: Sources) -> tuple[str, str]:
    return sources.model.content_id, sources.data.content_id


# --- found


def test_relative_paths_start_from_the_specs_folder(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir("/")
    found = find_sources(spec_of(), place)
    assert found.model.location == str(place / "model")
    assert found.data.location == str(place / "data.parquet")


def test_absolute_paths_and_the_home_folder_are_understood(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(place))
    absolute = find_sources(spec_of({"model.path": str(place / "model"), "task.data": "~/data.parquet"}), Path("/"))
    assert content(absolute) == content(find_sources(spec_of(), place))


def test_sources_come_back_from_json(place: Path):
    found = find_sources(spec_of(), place)
    assert Sources.from_json(found.to_json()) == found


def test_a_folder_of_data_is_all_its_data_files(place: Path):
    spec = spec_of({"task.data": "sets"})
    write_data(place / "sets" / "train.parquet")
    write_data(place / "sets" / "deep" / "more.parquet", seed=1)
    (place / "sets" / "notes.txt").write_text("not data")
    before = find_sources(spec, place).data
    assert set(before.files) == {"train.parquet", "deep/more.parquet"}
    (place / "sets" / "notes.txt").write_text("still not data")
    assert find_sources(spec, place).data.content_id == before.content_id
    write_data(place / "sets" / "deep" / "more.parquet", seed=2)
    assert find_sources(spec, place).data.content_id != before.content_id


# --- changed


@pytest.mark.parametrize(
    ("name", "changes_model"), [("model/model.safetensors", True), ("model/config.json", True), ("data.parquet", False)]
)
def test_a_changed_file_is_noticed(place: Path, name: str, changes_model: bool):
    before = find_sources(spec_of(), place)
    with (place / name).open("r+b") as stream:
        stream.seek(10)
        stream.write(b"?")
    after = find_sources(spec_of(), place, known=before)
    assert (after.model.content_id != before.model.content_id) is changes_model
    assert (after.data.content_id != before.data.content_id) is not changes_model


def test_a_file_that_comes_or_goes_is_noticed(place: Path):
    before = find_sources(spec_of(), place)
    (place / "model" / "vocab.txt").write_text("a b")
    with_vocabulary = find_sources(spec_of(), place, known=before)
    assert with_vocabulary.model.content_id != before.model.content_id
    (place / "model" / "vocab.txt").unlink()
    assert content(find_sources(spec_of(), place, known=with_vocabulary)) == content(before)


def test_prose_beside_a_model_is_not_the_model(place: Path):
    before = find_sources(spec_of(), place)
    (place / "model" / "README.md").write_text("a model")
    assert content(find_sources(spec_of(), place)) == content(before)


def test_a_touched_file_is_the_same(place: Path):
    before = find_sources(spec_of(), place)
    os.utime(place / "data.parquet", (1, 1))
    assert content(find_sources(spec_of(), place, known=before)) == content(before)


def test_an_untouched_file_is_not_read_again_and_one_with_its_time_put_back_is(place: Path):
    before = find_sources(spec_of(), place)
    model = before.model
    known = {name: replace(file, sha256="0" * 64) for name, file in model.files.items()}
    unread = find_sources(spec_of(), place, known=replace(before, model=replace(model, files=known)))
    assert {file.sha256 for file in unread.model.files.values()} == {"0" * 64}
    rewrite_keeping_time(place / "model" / "model.safetensors", bytes([1]) * 1000)
    assert content(find_sources(spec_of(), place, known=before)) == content(find_sources(spec_of(), place))
    assert content(find_sources(spec_of(), place, known=before)) != content(before)


def test_another_checkpoint_of_the_same_size_and_time_is_told_apart(place: Path):
    # archives that can be reproduced give every file one time, and checkpoints of one architecture have one size
    before = find_sources(spec_of(), place)
    shutil.copytree(place / "model", place / "other")
    rewrite_keeping_time(place / "other" / "model.safetensors", bytes([1]) * 1000)
    after = find_sources(spec_of({"model.path": "other"}), place, known=before)
    assert after.model.content_id != before.model.content_id


def test_moved_files_are_the_same_sources(place: Path):
    before = find_sources(spec_of(), place)
    (place / "elsewhere").mkdir()
    shutil.move(place / "model", place / "elsewhere" / "renamed")
    shutil.move(place / "data.parquet", place / "elsewhere" / "data.parquet")
    moved = spec_of({"model.path": "elsewhere/renamed", "task.data": "elsewhere/data.parquet"})
    assert content(find_sources(moved, place, known=before)) == content(before)
    assert content(find_sources(moved, place)) == content(before)


def test_a_renamed_data_file_is_the_same_source(place: Path):
    before = find_sources(spec_of(), place)
    shutil.move(place / "data.parquet", place / "reviews.parquet")
    assert content(find_sources(spec_of({"task.data": "reviews.parquet"}), place)) == content(before)


def test_a_link_is_what_it_points_to(place: Path):
    (place / "link").symlink_to(place / "model")
    linked = find_sources(spec_of({"model.path": "link"}), place)
    assert content(linked) == content(find_sources(spec_of(), place))


# --- not there


@pytest.mark.parametrize(
    "changes",
    [{"model.path": "./none"}, {"model.path": "a/b/c"}, {"model.path": "/none"}, {"model.path": "~/none-of-it"}],
    ids=str,
)
def test_a_missing_model_folder_is_told_with_where_it_was_looked_for(place: Path, changes: dict[str, Any]):
    with pytest.raises(SourceError, match=r"there is nothing at /.*; paths are relative to the folder of the spec"):
        find_sources(spec_of(changes), place)


@pytest.mark.parametrize("data", ["none.parquet", "none.csv", "none.tsv", "./none", "a/b/none.jsonl"])
def test_missing_data_is_told_with_where_it_was_looked_for(place: Path, data: str):
    with pytest.raises(SourceError, match=rf"there is nothing at {place}/.* \(from `{data}`\)"):
        find_sources(spec_of({"task.data": data}), place)


@pytest.mark.parametrize(
    ("there", "written", "said"),
    [
        ("Films.csv", "films.csv", "; 'Films.csv' is there, which differs in capital letters"),
        ("e\u0301t.csv", "\u00e9t.csv", r"; 'e\u0301t.csv' is there, which has its accents written in another way"),
    ],
)
def test_a_file_whose_name_looks_the_same_is_named(place: Path, there: str, written: str, said: str):
    (place / there).write_text("text,label\na,0\n")
    with pytest.raises(SourceError, match=re.escape(said)):
        find_sources(spec_of({"task.data": written}), place)


def test_what_is_no_file_of_data_is_told_as_what_it_is(place: Path):
    (place / "gone.csv").symlink_to("nowhere.csv")
    os.mkfifo(place / "pipe.csv")
    for data, said in (
        ("gone.csv", "is a broken link to nowhere.csv"),
        ("pipe.csv", "neither a file nor a folder, but a pipe"),
        ("https://huggingface.co/datasets/glue", "is an address, not a path here; .* by its id, such as owner/name"),
    ):
        with pytest.raises(SourceError, match=said):
            find_sources(spec_of({"task.data": data}), place)


def test_a_folder_that_is_no_model_says_what_it_lacks(place: Path):
    (place / "model" / "config.json").unlink()
    with pytest.raises(SourceError, match=r"model is not a model folder of transformers: it has no config.json"):
        find_sources(spec_of(), place)
    with pytest.raises(SourceError, match=r"data.parquet is a file; name the folder of the model"):
        find_sources(spec_of({"model.path": "data.parquet"}), place)
    (place / "model" / "checkpoint-2").mkdir()
    (place / "model" / "checkpoint-2" / "config.json").touch()
    with pytest.raises(SourceError, match=r"no config.json; name one in it that has: checkpoint-2$"):
        find_sources(spec_of(), place)


def test_a_folder_without_data_says_which_files_count(place: Path):
    (place / "empty").mkdir()
    with pytest.raises(SourceError, match=r"empty holds no .parquet, .csv, .tsv, .jsonl, .json file"):
        find_sources(spec_of({"task.data": "empty"}), place)


def test_a_file_that_may_not_be_read_is_told(place: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("hashlib.file_digest", refuse)
    with pytest.raises(SourceError, match=r"cannot be read: Permission denied"):
        find_sources(spec_of(), place)


# --- the hub


@pytest.mark.parametrize(
    ("changes", "kind"), [({"model.path": "some-org/some-model"}, "model"), ({"task.data": "some-org/set"}, "dataset")]
)
def test_an_id_that_the_hub_cannot_be_asked_for_says_what_to_do(place: Path, changes: dict[str, str], kind: str):
    name = next(iter(changes.values()))
    expected = rf"there is no local path `{name}`, the hub could not be asked for a {kind}.*give a folder, or run"
    with pytest.raises(SourceError, match=expected):
        find_sources(spec_of(changes), place)


def test_an_id_that_cannot_be_one_is_told_the_same_way(place: Path):
    with pytest.raises(SourceError, match=r"no local path `no such--thing!`, and it is no id of the hub"):
        find_sources(spec_of({"model.path": "no such--thing!"}), place)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            errors.GatedRepoError,
            "this model only to users who have accepted its terms; accept them, and log in here",
        ),
        (errors.DisabledRepoError, r"could not be asked for a model with that id \(DisabledRepoError\)"),
        (errors.RepositoryNotFoundError, "the hub shows no model with that id; correct it, or log in here"),
        (errors.RevisionNotFoundError, "what the hub has under that id has no revision `v9`; correct it"),
        (errors.OfflineModeIsEnabled, r"could not be asked for a model with that id \(HF_HUB_OFFLINE is set\)"),
        (ConnectionError, r"could not be asked for a model with that id \(\S+ cannot be reached\)"),
    ],
)
def test_each_answer_of_the_hub_says_what_to_do(
    place: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception], said: str
):
    def refuse(*_: Any, **__: Any) -> None:
        # the hub's own classes are made of a response, which none of the versions in use needs to name the class
        raise error.__new__(error)

    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", refuse)
    spec = spec_of({"model.path": "some-org/some-model", "model.revision": "v9"})
    with pytest.raises(SourceError, match=rf"model.path: there is no local path `some-org/some-model`, .*{said}"):
        find_sources(spec, place)


def test_a_sweep_that_began_online_goes_on_offline_with_the_same_commit(place: Path):
    spec: Spec = spec_of({"model.path": "some-org/some-model"})
    data = find_sources(spec_of(), place).data
    known = Sources(Source("some-org/some-model", revision="c0ffee"), data)
    assert find_sources(spec, place, known=known).model == known.model
    other = Sources(Source("some-org/other", revision="c0ffee"), data)
    with pytest.raises(SourceError, match="could not be asked"):
        find_sources(spec, place, known=other)


def test_the_commit_on_the_hub_is_the_content(place: Path):
    one, same, other = (Source("org/name", revision=commit) for commit in ("a", "a", "b"))
    assert one.content_id == same.content_id != other.content_id
