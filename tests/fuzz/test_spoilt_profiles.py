"""Spoilt cluster profiles: the lines of a script, or one message that names the file, the line and the key.

`NTKSWEEP_FUZZ=full` tries 5,000 profiles instead of 250.
"""

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from orchestrator.cluster.profiles import read_profile, starting_profile
from orchestrator.errors import ProfileFileError
from slurm.profile.profile import Profile
from slurm.submit.script import python_command, setup_lines
from tests.fuzz.limits import check_message, in_memory, in_time
from tests.fuzz.mutations import spoilt
from tests.root import ROOT

pytestmark = pytest.mark.faults

PROFILES = 5_000 if os.environ.get("NTKSWEEP_FUZZ") == "full" else 250
BASES = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "examples/profiles").glob("*.yaml"))}
KEYS = [*sorted(Profile.model_fields), "mem", "time", "x", "<<", "", "no"]


def test_a_spoilt_profile_is_read_or_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/ada")
    path = tmp_path / "profile.yaml"
    bases = BASES | {"starting": starting_profile()}
    seen: Counter[str] = Counter()

    @settings(
        max_examples=PROFILES, deadline=None, database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )  # fmt: skip
    @given(content=spoilt(bases, KEYS))
    def look(content: bytes) -> None:
        path.write_bytes(content)
        with in_time():
            try:
                profile = read_profile(path)
            except ProfileFileError as error:
                seen["refused"] += 1
                check_message(str(error), str(path))
                return
            seen["valid"] += 1
            lines = setup_lines(profile, tmp_path / "results")
            assert all("\n" not in line for line in lines if line not in profile.setup)
            assert python_command(profile)
            assert Profile.model_validate_json(profile.model_dump_json()) == profile

    with in_memory():
        look()
    assert seen["refused"] > PROFILES // 4
    assert seen["valid"] > PROFILES // 20
