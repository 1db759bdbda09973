"""The cache for the user's next commands: it saves work, and is never taken for something that it is not."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.model.dry_run import dry_run
from orchestrator.engine.run import resolve
from orchestrator.errors import SourceError
from orchestrator.spec import read_spec
from orchestrator.store import user_cache
from orchestrator.store.user_cache import recall, remember
from orchestrator.sweep import sources, survey
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.sources import find_sources
from orchestrator.sweep.survey import surveys
from orchestrator.sweep.survey_facts import Survey
from tests.orchestrator.sweeps import make_sweep, ntksweep, spec_of, write_data, write_spec
from tests.root import ROOT

WITHOUT_MODELS = """
import sys
sys.modules.update(dict.fromkeys(["torch", "transformers", "peft", "scipy", "sklearn", "datasets", "ray"]))
from orchestrator.cli import main
sys.argv = ["ntksweep", *sys.argv[1:]]
main()
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the user's cache, empty."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("NTKSWEEP_CACHE", str(folder))
    return folder


def look(path: Path) -> list[Survey]:
    """Survey what a spec names, as `plan` does, without a results folder."""
    spec = read_spec(path)
    folder = ResultsFolder(spec.folder)
    return surveys(resolve(spec, path.parent, folder), folder.artifacts())


def without_models(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a Python that cannot import what runs models."""
    command = [sys.executable, "-c", WITHOUT_MODELS, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)


def test_what_was_planned_once_is_planned_again_without_a_model(cache: Path, tmp_path: Path, tiny_model: Path):
    path = make_sweep(tmp_path / "sweep", model=tiny_model)
    assert "ModuleNotFoundError" in without_models("plan", path).stderr
    first = ntksweep("plan", path, "--json")
    again = without_models("plan", path, "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["groups"] == json.loads(first.output)["groups"]
    assert not (tmp_path / "sweep/results").exists()


def test_a_model_is_tried_with_one_thread(
    cache: Path, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    threads = []

    def tried(*arguments: Any, **named: Any) -> None:
        threads.append(torch.get_num_threads())
        dry_run(*arguments, **named)
        threads.append(torch.get_num_threads())

    monkeypatch.setattr("finetune.model.dry_run.dry_run", tried)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        look(make_sweep(tmp_path / "sweep", model=tiny_model))
        assert threads == [1, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_folder_that_python_looks_in_twice_is_no_other_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "something.egg-info").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    once = user_cache.code_here.__wrapped__("ntk_dist")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    assert user_cache.code_here.__wrapped__("ntk_dist") == once


def test_what_a_package_brings_for_itself_is_no_other_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """setuptools and ray add folders of their own to the path when they are imported."""
    copies = tmp_path / "package_of_this_test/_vendor"
    (copies / "something.dist-info").mkdir(parents=True)
    (copies.parent / "__init__.py").touch()
    before = user_cache.code_here.__wrapped__("ntk_dist")
    monkeypatch.syspath_prepend(copies)
    assert user_cache.code_here.__wrapped__("ntk_dist") == before


def test_a_changed_file_of_a_package_is_other_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    package = tmp_path / "package_of_this_test"
    package.mkdir()
    module = package / "__init__.py"
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for text, changed in (("x = 1", 1), ("x = 12", 1), ("x = 13", 2)):
        module.write_text(text)
        os.utime(module, (changed, changed))
        found.append(user_cache.code_here.__wrapped__(package.name))
    assert len(set(found)) == 3


def test_only_what_is_kept_of_the_same_spec_model_and_data_is_taken(cache: Path, tmp_path: Path, tiny_model: Path):
    path = make_sweep(tmp_path / "sweep", model=tiny_model)
    (first,) = look(path)
    assert look(path) == [first]
    write_data(tmp_path / "sweep/data.parquet", n=60)
    assert [each.pool_train for each in look(path)] == [60]
    write_spec(tmp_path / "sweep", {"model.path": str(tiny_model), "adapter.rank": 1})
    assert look(path)[0].groups[0].n_parameters < first.groups[0].n_parameters


def test_a_spec_that_was_refused_is_looked_at_again(cache: Path, tmp_path: Path, tiny_model: Path):
    path = make_sweep(tmp_path / "sweep", {"adapter.target_modules": ["nowhere"]}, model=tiny_model)
    for _ in range(2):
        with pytest.raises(SourceError, match="nowhere"):
            look(path)
    assert not list(cache.glob("surveys/*"))


def test_other_code_and_other_libraries_look_for_themselves(
    cache: Path, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    path = make_sweep(tmp_path / "sweep", model=tiny_model)
    look(path)
    (kept,) = cache.glob("surveys/*")
    (tmp_path / "site").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "site")
    before = user_cache.code_here.__wrapped__("finetune")
    assert user_cache.code_here.__wrapped__("finetune") == before
    (tmp_path / "site/torch-99.dist-info").mkdir()
    assert user_cache.code_here.__wrapped__("finetune") != before
    assert user_cache.code_here.__wrapped__("finetune") != user_cache.code_here.__wrapped__("ntk_dist")
    monkeypatch.setattr(survey, "code_here", lambda *_: "other code")
    look(path)
    assert len(list(cache.glob("surveys/*"))) == 2
    assert kept.exists()


def test_what_a_results_folder_keeps_is_not_kept_for_the_user(cache: Path, finished: Path):
    look(finished)
    assert not list(cache.glob("surveys/*"))


def test_nothing_is_kept_of_models_that_bring_code(cache: Path, tmp_path: Path, tiny_model: Path):
    path = make_sweep(tmp_path / "sweep", {"model.trust_remote_code": True}, model=tiny_model)
    spec = read_spec(path)
    folder = ResultsFolder(spec.folder)
    surveys(resolve(spec, path.parent, folder, trusts_code=True), folder.artifacts())
    assert not list(cache.glob("surveys/*"))


def test_files_that_were_left_alone_are_not_read_again(
    cache: Path, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    spec = spec_of({"model.path": str(tiny_model)})
    data = write_data(tmp_path / "data.parquet")
    found = find_sources(spec, tmp_path)
    # a file system that rounds times may not tell a change from what was read a moment ago
    monkeypatch.setattr(sources, "_SETTLED_NS", 10**15)
    assert not sources._remembered(data)
    monkeypatch.setattr(sources, "_SETTLED_NS", -(10**15))
    for place in cache.glob("fingerprints/*"):
        place.unlink()
    assert find_sources(spec, tmp_path) == found
    read = []
    digest = sources.hashlib.file_digest
    monkeypatch.setattr(sources.hashlib, "file_digest", lambda *a: (read.append(a[0].name), digest(*a))[1])
    assert find_sources(spec, tmp_path) == found
    assert read == []
    facts = data.stat()
    content = bytearray(data.read_bytes())
    content[-20] ^= 1
    data.write_bytes(content)
    os.utime(data, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert find_sources(spec, tmp_path).data.content_id != found.data.content_id
    assert read == [str(data)]


@pytest.mark.parametrize("change", ["damaged", "a folder", "open to others", "a link", "not wanted"])
def test_a_cache_that_cannot_be_used_is_none(cache: Path, change: str, monkeypatch: pytest.MonkeyPatch):
    remember("surveys", "key", {"a": 1})
    assert recall("surveys", "key") == {"a": 1}
    entry = cache / "surveys/key.json"
    if change == "damaged":
        entry.write_text(entry.read_text().replace("1", "2"))
    elif change == "a folder":
        entry.unlink()
        entry.mkdir()
    elif change == "open to others":
        cache.chmod(0o777)
    elif change == "a link":
        entry.rename(cache / "elsewhere.json")
        entry.symlink_to(cache / "elsewhere.json")
    else:
        monkeypatch.setenv("NTKSWEEP_CACHE", "")
    with pytest.raises(KeyError):
        recall("surveys", "key")
    remember("surveys", "other", {"b": 2})


def test_the_cache_does_not_grow_for_ever(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(user_cache, "MOST_ENTRIES", 3)
    for number in range(6):
        remember("surveys", f"key{number}", {"number": number})
        os.utime(cache / f"surveys/key{number}.json", (number, number))
    assert sorted(each.name for each in cache.glob("surveys/*")) == ["key3.json", "key4.json", "key5.json"]


def test_commands_that_look_load_nothing_that_runs_models(finished: Path):
    results = read_spec(finished).folder
    for arguments in (["--help"], ["status", results], ["show", results], ["run", finished, "--executor", "inline"]):
        ran = without_models(*arguments)
        assert ran.returncode == 0, ran.stderr
