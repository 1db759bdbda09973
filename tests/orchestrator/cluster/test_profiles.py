"""Profile files: the examples are valid, and mistakes are answered as in specs."""

import re
from pathlib import Path

import pytest

from orchestrator.cluster.profiles import profile_page, read_profile, starting_profile
from orchestrator.errors import ProfileFileError, SpecError
from orchestrator.spec import read_spec
from slurm.profile.profile import Profile
from tests.root import ROOT

EXAMPLES = sorted((ROOT / "examples/profiles").glob("*.yaml"))


def profile_in(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def fault(folder: Path, text: str) -> str:
    with pytest.raises(ProfileFileError) as raised:
        read_profile(profile_in(folder, text))
    return str(raised.value)


def test_a_file_of_another_kind_is_told_from_one_with_mistakes(tmp_path: Path):
    spec = (ROOT / "examples/quickstart.yaml").read_text(encoding="utf-8")
    assert "does not look like a profile: name, model, task, adapter, head are none of its keys" in fault(
        tmp_path, spec
    )
    with pytest.raises(SpecError, match="does not look like a spec: partition, nodes, tasks_per_node"):
        read_spec(ROOT / "examples/profiles/cpu.yaml")


def test_there_is_an_example_for_each_kind_of_cluster():
    assert [path.stem for path in EXAMPLES] == ["cpu", "gpu", "multi-node", "preemptible"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_keys_of_an_example_that_are_commented_out_are_valid_too(path: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    text = path.read_text(encoding="utf-8")
    for line in re.findall(r"(?m)^# ([a-z_]+: .*)$", text):
        key = line.partition(":")[0]
        if key not in Profile.model_fields:
            continue
        kept = re.sub(rf"(?m)^(# )?{key}: .*$", "", text)
        # A container stands instead of an environment.
        kept = re.sub(r"(?m)^virtual_environment: .*$", "", kept) if key == "container" else kept
        read_profile(profile_in(tmp_path, f"{kept}\n{line}\n"))


def test_the_examples_ask_for_what_they_say(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/ada")
    cpu, gpu, many, preemptible = map(read_profile, EXAMPLES)
    assert (cpu.gpus_per_node, cpu.cpus_per_node) == (0, 16)
    assert (gpu.gpus_per_node, gpu.gpus_per_task, gpu.nodes) == (4, 1, 1)
    assert (many.nodes, many.gpus_per_node, many.minutes) == (2, 8, 1440)
    assert (preemptible.allocations, preemptible.requeues) == (8, 20)
    assert gpu.virtual_environment == Path("/home/ada/envs/ntksweep")


def test_an_unknown_key_names_its_line_and_the_nearest_valid_key(tmp_path: Path):
    message = fault(tmp_path, "memory: 4GB\ntime_limit: 1h\ncpus_per_tsk: 4\n")
    assert message.startswith(f"{tmp_path}/mine.yaml is not a valid profile (1 fault):")
    assert "line 3, cpus_per_tsk: unknown key `cpus_per_tsk`; did you mean `cpus_per_task`?" in message


def test_every_fault_of_a_profile_is_told_at_once(tmp_path: Path):
    message = fault(tmp_path, "partition: a b\ntime_limit: soon\nresults: all\nsbatch: {mem: 4G}\nnodes: 0\n")
    assert "(6 faults)" in message
    for expected in (
        "the key `memory` is missing",
        "line 1, partition: ",
        "line 2, time_limit: `soon` is no duration with a unit: write 4h",
        "line 3, results: `all` is not one of private, group, everyone",
        "line 4, sbatch: `mem` is set by the key `memory` of the profile",
        "line 5, nodes: ",
    ):
        assert expected in message


def test_a_key_that_stands_twice_is_an_error_with_its_line(tmp_path: Path):
    text = "memory: 4GB\ntime_limit: 1h\nmemory: 8GB\n"
    assert fault(tmp_path, text) == f"{tmp_path}/mine.yaml: line 3: the key `memory` is written twice; remove one"


@pytest.mark.parametrize(
    ("written", "minutes"), [("12:30:00", 750), ("1-00:00:00", 1440), ("0:30:00", 30), ("1d", 1440), ("'4h'", 240)]
)
def test_durations_with_colons_are_no_numbers_to_the_base_of_60(tmp_path: Path, written: str, minutes: int):
    assert read_profile(profile_in(tmp_path, f"memory: 4GB\ntime_limit: {written}\n")).minutes == minutes


def test_a_number_without_a_unit_is_no_time_limit(tmp_path: Path):
    assert "line 2, time_limit: `90` is no duration with a unit: write 4h" in fault(
        tmp_path, "memory: 4GB\ntime_limit: 90\n"
    )


def test_a_missing_profile_says_where_to_find_one(tmp_path: Path):
    with pytest.raises(
        ProfileFileError, match=r"there is no profile at .*none.yaml; `ntksweep init --profile` writes one"
    ):
        read_profile(tmp_path / "none.yaml")
    with pytest.raises(ProfileFileError, match="cannot be read"):
        read_profile(tmp_path)
    assert "is empty or not a mapping; `ntksweep init --profile`" in fault(tmp_path, "# nothing\n")
    assert "is not YAML" in fault(tmp_path, "memory: [4GB\n")


def test_the_reference_page_has_every_key():
    rows = re.findall(r"(?m)^\| `(\w+)` \| (.+) \| (.+) \| `(.+)` \|$", profile_page())
    assert [row[0] for row in rows] == list(Profile.model_fields)


def test_the_reference_page_in_the_documentation_is_the_current_one():
    page = ROOT / "docs/profile.md"
    assert page.read_text(encoding="utf-8") == profile_page(), "run `python docs/write_reference.py`"


def test_the_profile_to_start_from_is_valid_and_has_every_key(tmp_path: Path):
    text = starting_profile()
    assert read_profile(profile_in(tmp_path, text)).nodes == 1
    named = re.findall(r"(?m)^(?:# )?([a-z_]+): ", text)
    assert [name for name in named if name in Profile.model_fields] == list(Profile.model_fields)
