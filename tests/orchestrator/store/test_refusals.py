"""Refusals: what one run found to be wrong for good, other runs need not find again."""

from pathlib import Path

import pytest

from orchestrator.store.refusals import Refusals


def test_a_refusal_is_seen_by_every_run_until_the_user_starts_again(tmp_path: Path) -> None:
    mine, other = Refusals(tmp_path / "refused"), Refusals(tmp_path / "refused")
    assert other.of("a") is None
    mine.add("a", "input", "row 3 holds nan")
    assert other.of("a") == ("input", "row 3 holds nan")
    assert other.of("b") is None
    other.clear()
    assert mine.of("a") is None


def test_the_first_refusal_stays(tmp_path: Path) -> None:
    refusals = Refusals(tmp_path)
    refusals.add("a", "input", "first")
    refusals.add("a", "code", "second")
    assert refusals.of("a") == ("input", "first")


def test_there_is_nothing_to_clear_in_a_folder_that_nobody_has_made(tmp_path: Path) -> None:
    refusals = Refusals(tmp_path / "refused")
    refusals.clear()
    assert not refusals.root.exists()


@pytest.mark.parametrize("content", [b"", b'{"failure": "input"', b'{"failure": "input", "message": "forged"}'])
def test_a_refusal_that_cannot_be_read_refuses_nothing(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    assert Refusals(tmp_path).of("a") is None
