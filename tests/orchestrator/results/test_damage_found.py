"""Damage of every shape is found, said in one message, and mended as the message says; what is foreign does no harm."""

import json
import os
import shutil
import stat
from pathlib import Path

import pytest

from orchestrator.errors import ResultsError
from orchestrator.results.loading import load
from orchestrator.results.tables.manifest import MANIFEST, PART, damaged_tables
from orchestrator.sweep.folder import ResultsFolder
from tests.orchestrator.sweeps import make_sweep, ntksweep, run_spec


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The folder of a finished sweep; nobody changes it."""
    return run_and_folder(make_sweep(tmp_path_factory.mktemp("template"), model=tiny_model))


def run_and_folder(spec: Path) -> Path:
    run_spec(spec)
    return spec.parent


@pytest.fixture
def spec(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "copy")
    path = tmp_path / "copy" / "sweep.yaml"
    path.write_text(path.read_text().replace(str(template), str(tmp_path / "copy")))
    return path


def records(spec: Path, kind: str) -> list[Path]:
    return sorted((spec.parent / "results/artifacts" / kind).glob("*.json"))


def arrays_of(record: Path) -> Path:
    return next(record.parent.glob(f"{record.stem}.*.safetensors"))


def another_record(spec: Path) -> None:
    first, second = records(spec, "solve")[:2]
    shutil.copy(first, second)


def another_arrays(spec: Path) -> None:
    first, second = records(spec, "solve")[:2]
    shutil.copy(arrays_of(first), arrays_of(second))


def bytes_appended(spec: Path) -> None:
    with arrays_of(records(spec, "gram")[0]).open("ab") as stream:
        stream.write(b"more")


def dangling_link(spec: Path) -> None:
    record = records(spec, "solve")[0]
    record.unlink()
    record.symlink_to("nowhere")


def a_link(spec: Path) -> None:
    record = records(spec, "solve")[0]
    record.symlink_to(record.rename(spec.parent / "elsewhere.json"))


def a_folder(spec: Path) -> None:
    record = records(spec, "solve")[0]
    record.unlink()
    record.mkdir()


def emptied(spec: Path) -> None:
    records(spec, "dataset")[0].write_bytes(b"")


@pytest.mark.parametrize(
    "damage", [another_record, another_arrays, bytes_appended, dangling_link, a_link, a_folder, emptied]
)
def test_what_status_verify_finds_in_a_finished_sweep_run_mends(damage, spec: Path) -> None:
    cells = (spec.parent / "results/tables/cells" / PART).read_bytes()
    damage(spec)
    found = ntksweep("status", spec, "--verify")
    assert found.status == 3
    assert found.output.count("damaged: ") == 1
    assert f"`ntksweep run {spec.parent / 'results'}`" in found.output
    plain = ntksweep("status", spec)
    assert plain.status == 3
    assert plain.output.count("damaged when last verified: ") == 1
    assert f"`ntksweep run {spec.parent / 'results'}`" in plain.output
    answer = ntksweep("run", spec)
    assert answer.status == 0, answer.errors
    plain = ntksweep("status", spec)
    assert (plain.status, "damaged" in plain.output) == (0, False)
    again = ntksweep("status", spec, "--verify")
    assert again.status == 0, again.output
    assert "every artifact and table matches" in again.output
    assert ResultsFolder(spec.parent / "results").artifacts().noted() == []
    assert (spec.parent / "results/tables/cells" / PART).read_bytes() == cells


def test_a_table_that_was_found_damaged_is_told_until_it_is_written_again(spec: Path) -> None:
    part = spec.parent / "results/tables/cells" / PART
    whole = part.read_bytes()
    part.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    assert ntksweep("status", spec).status == 0  # it is as large as it was, and nothing was read
    assert f"damaged: tables/cells/{PART}" in ntksweep("status", spec, "--verify").output
    known = json.loads(ntksweep("status", spec, "--json").output)
    assert known["damaged"] == []
    assert known["damaged_before"] == [f"tables/cells/{PART}"]
    assert not known["complete"]
    assert ntksweep("run", spec).status == 0
    assert part.read_bytes() == whole
    assert ntksweep("status", spec).status == 0


def test_what_is_brought_back_is_no_longer_told_once_it_was_verified(spec: Path) -> None:
    arrays = arrays_of(records(spec, "gram")[0])
    whole = arrays.read_bytes()
    arrays.write_bytes(whole + b"more")
    assert ntksweep("status", spec, "--verify").status == 3
    arrays.write_bytes(whole)
    assert "damaged when last verified: gram/" in ntksweep("status", spec).output
    assert ntksweep("status", spec, "--verify").status == 0
    assert ntksweep("status", spec).status == 0


def test_no_flipped_bit_of_a_table_or_its_manifest_passes(spec: Path) -> None:
    folder = ResultsFolder(spec.parent / "results")
    for name in (f"spectra/{PART}", MANIFEST):
        path = folder.tables / name
        content = bytearray(path.read_bytes())
        for position in range(len(content)):
            content[position] ^= 1 << position % 8
            path.write_bytes(content)
            assert damaged_tables(folder) == [name], position
            content[position] ^= 1 << position % 8
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        with pytest.raises(ResultsError, match=r"is damaged: .*`ntksweep run .*results` writes the tables again"):
            _ = load(folder.root).spectra


@pytest.mark.parametrize("how", ["cut", "garbled", "folder", "gone", "no manifest", "no folder", "table is a file"])
def test_tables_that_cannot_be_read_are_one_message_and_written_again(how: str, spec: Path) -> None:
    tables = spec.parent / "results/tables"
    part = tables / "cells" / PART
    whole = part.read_bytes()
    if how in ("cut", "garbled"):
        part.write_bytes(whole[: len(whole) // 2] if how == "cut" else b"PAR1" * 100)
    elif how == "no manifest":
        (tables / MANIFEST).unlink()
    elif how == "no folder":
        shutil.rmtree(tables)
    else:
        part.unlink()
        if how == "folder":
            (part / "inner").mkdir(parents=True)
        elif how == "table is a file":
            part.parent.rmdir()
            part.parent.write_text("mine")
    answer = ntksweep("show", spec)
    assert answer.status == 2
    assert "`ntksweep run" in answer.errors
    if how in ("cut", "garbled", "gone"):
        said = "is gone; `" if how == "gone" else "is damaged: it is not, byte for byte, what was written; `"
        results = spec.parent / "results"
        assert f"{part} {said}ntksweep run {results}` writes the tables again" in answer.errors
    again = ntksweep("run", spec.parent / "results")
    assert again.status == 0
    assert "every stage was finished already; the tables were written again" in again.output
    assert "nothing to do" not in again.output
    assert part.read_bytes() == whole
    assert "nothing to do" in ntksweep("run", spec).output
    assert ntksweep("status", spec, "--verify").status == 0


def test_a_table_that_goes_after_it_was_loaded_names_the_folder_to_run(spec: Path) -> None:
    results = spec.parent / "results"
    cells = load(results).cells
    (results / "tables/cells" / PART).unlink()
    with pytest.raises(ResultsError, match=f"`ntksweep run {results}` writes it again"):
        cells.to_arrow()


def test_foreign_files_are_passed_over_and_said(spec: Path) -> None:
    results = spec.parent / "results"
    stage = records(spec, "solve")[0].stem
    (results / "claims").mkdir(exist_ok=True)
    for number, content in enumerate((b"[1,2]", b'{"host": "x"}', b"\xff\xfe\x01", b"9" * 100_000, b"[" * 50_000), 1):
        (results / "claims" / f"{stage}.{number}").write_bytes(content)
    (results / "claims" / f"{stage}.7").mkdir()
    for folder in ("claims", "journal", "artifacts", "artifacts/solve", "tables", "tables/cells"):
        (results / folder / "notes.txt").write_text("mine")
    for name, content in (
        ("a.jsonl", b"[1,2]\n7\n"),
        ("b.jsonl", b"\xff\n" * 9),
        ("c.jsonl", b'{"event": "failed"}\n'),
    ):
        (results / "journal" / name).write_bytes(content)
    (results / "journal" / "d.jsonl").mkdir()
    shutil.copy(results / "tables/cells" / PART, results / "tables/cells/part-0 (copy).parquet")
    answer = ntksweep("status", spec, "--json")
    assert answer.status == 0, answer.errors
    said = json.loads(answer.output)["foreign"]
    assert {
        "claims/notes.txt",
        f"claims/{stage}.7",
        "journal/a.jsonl",
        "journal/d.jsonl",
        "artifacts/notes.txt",
    } <= set(said)
    assert {"artifacts/solve/notes.txt", "tables/notes.txt", "tables/cells/part-0 (copy).parquet"} <= set(said)
    assert "ignored: " in ntksweep("status", spec).output
    assert len(load(results).cells) == 6
    records(spec, "solve")[0].unlink()
    (results / "tables" / MANIFEST).unlink()
    answer = ntksweep("run", spec)
    assert answer.status == 0, answer.errors
    assert (results / "claims" / f"{stage}.1").read_bytes() == b"[1,2]"
    assert (results / "claims/notes.txt").exists()


@pytest.mark.parametrize("lost", ["spec.yaml", "plan.json", "journal", "artifacts", "spec.yaml and plan.json"])
def test_what_is_lost_is_written_again_by_running_the_spec(lost: str, spec: Path) -> None:
    results = spec.parent / "results"
    for name in lost.split(" and "):
        path = results / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if "spec.yaml" in lost:
        answer = ntksweep("status", results)
        assert answer.status == 2
        assert "run the spec that the sweep was run with, which writes it again" in answer.errors
    answer = ntksweep("run", spec)
    assert answer.status == 0, answer.errors
    assert ntksweep("status", results).status == 0
    assert all((results / name).exists() for name in ("spec.yaml", "plan.json", "artifacts"))


def test_another_sweep_does_not_take_a_folder_whose_spec_is_lost(spec: Path) -> None:
    (spec.parent / "results/spec.yaml").unlink()
    spec.write_text(spec.read_text().replace("name: tiny", "name: other"))
    answer = ntksweep("run", spec)
    assert answer.status == 2
    assert "holds the sweep `tiny`, not `other`" in answer.errors


def test_a_moved_folder_is_looked_at_where_it_is(spec: Path) -> None:
    moved = (spec.parent / "results").rename(spec.parent / "moved")
    assert ntksweep("status", moved, "--verify").status == 0
    spec.write_text(spec.read_text().replace(str(spec.parent / "results"), str(moved)))
    assert "nothing to do" in ntksweep("run", spec).output


def test_local_results_are_their_owners_alone_unless_he_opens_them(template: Path, spec: Path) -> None:
    assert stat.S_IMODE((template / "results").stat().st_mode) == 0o700
    (spec.parent / "results").chmod(0o750)
    (spec.parent / "results/tables" / MANIFEST).unlink()
    assert ntksweep("run", spec).status == 0
    assert stat.S_IMODE((spec.parent / "results").stat().st_mode) == 0o750


@pytest.mark.parametrize("place", ["logs/x.log", "journal/x.jsonl", "claims/x", "tables/x", "artifacts/x"])
def test_a_link_to_itself_stops_nothing(place: str, spec: Path):
    path = spec.parent / "results" / place
    path.symlink_to(path)
    for command in ("status", "show", "select", "logs"):
        assert ntksweep(command, path.parents[1]).status == 0
    assert ntksweep("run", spec).status == 0
    if not place.startswith("logs"):
        assert place in ntksweep("status", path.parents[1]).output


def test_a_stored_spec_that_is_something_else_is_told_in_words(spec: Path):
    (spec.parent / "results/spec.yaml").write_text("<html>404</html>")
    errors = ntksweep("status", spec.parent / "results").errors
    assert "spec.yaml cannot be read (it is not, or not all of, what ntksweep wrote); restore it" in errors


LARGE = ["plan.json", "tables/manifest.json", "spec.yaml", "logs/x.log", "submissions/x.json", "artifacts/survey/*"]


@pytest.mark.parametrize("place", LARGE)
def test_a_file_larger_than_memory_is_not_read(place: str, spec: Path):
    folder = spec.parent / "results"
    path = next(folder.glob(place), folder / place)
    path.parent.mkdir(exist_ok=True)
    path.touch()
    os.truncate(path, 1 << 40)
    for command in ("status", "show", "select", "logs"):
        answer = ntksweep(command, folder)
        assert answer.status in (0, 2, 3)
        assert "too little memory" not in answer.errors
