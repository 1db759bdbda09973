"""Durations and sizes as people who know Slurm write them."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm.profile.quantities import bytes_of, duration, expanded_folder, minutes_of

PARTS = st.tuples(st.integers(0, 30), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("4h", 240),
        ("90m", 90),
        ("90min", 90),
        ("1h30m", 90),
        ("1d12h", 2160),
        ("1d 12h", 2160),
        ("30s", 1),
        ("61s", 2),
        ("12:30:00", 750),
        ("00:10:00", 10),
        ("00:00:01", 1),
        ("1-12:00:00", 2160),
        ("1-12", 2160),
        ("2-0:30", 2910),
        ("100:00:00", 6000),
    ],
)
def test_a_duration_is_read_in_whole_minutes(text: str, minutes: int):
    assert minutes_of(text) == minutes


@pytest.mark.parametrize("text", ["90", "12:30", "", " ", "4 hours", "h", "1-", "-4h", "4h-", "1:2:3:4", "1.5h", "٤h"])
def test_what_has_no_clear_unit_is_no_duration(text: str):
    with pytest.raises(ValueError, match="is no duration with a unit: write 4h"):
        minutes_of(text)


@pytest.mark.parametrize("text", ["0m", "0h", "00:00:00", "0-0"])
def test_no_time_at_all_is_refused(text: str):
    with pytest.raises(ValueError, match="would end the allocation before it begins"):
        minutes_of(text)


@given(PARTS)
def test_slurms_way_of_writing_and_the_short_one_mean_the_same(parts: tuple[int, int, int, int]):
    days, hours, minutes, seconds = parts
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if total == 0:
        return
    expected = -(-total // 60)
    assert minutes_of(f"{days}-{hours:02}:{minutes:02}:{seconds:02}") == expected
    assert minutes_of(f"{days}d{hours}h{minutes}m{seconds}s") == expected
    assert minutes_of(f"{days * 24 + hours}:{minutes:02}:{seconds:02}") == expected


@given(st.integers(1, 100_000))
def test_a_duration_that_is_shown_is_read_as_the_same(minutes: int):
    assert minutes_of(duration(minutes)) == minutes


@pytest.mark.parametrize(
    ("text", "size"),
    [("64G", 64 << 30), ("500M", 500 << 20), ("1.5T", 3 << 39), ("64GB", 64 * 10**9), ("2GiB", 2 << 30), (7, 7)],
)
def test_slurms_own_units_are_powers_of_two(text: str | int, size: int):
    assert bytes_of(text) == size


def test_home_and_variables_in_a_folder_are_filled_in(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("SCRATCH", "/scratch/ada")
    assert expanded_folder(Path("~/envs")) == Path("/home/ada/envs")
    assert expanded_folder(Path("$SCRATCH/x")) == Path("/scratch/ada/x")
    assert expanded_folder(Path("${SCRATCH}")) == Path("/scratch/ada")


def test_a_folder_that_would_be_another_one_on_every_node_is_refused(monkeypatch):
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(ValueError, match=re.escape("the variable $NOWHERE in `$NOWHERE/x` is not set here")):
        expanded_folder(Path("$NOWHERE/x"))
    with pytest.raises(ValueError, match="`scratch` must begin with /"):
        expanded_folder(Path("scratch"))
