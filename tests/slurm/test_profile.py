"""The cluster profile: what is accepted, and what each mistake is answered with."""

from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import TypeAdapter, ValidationError

from slurm.profile.profile import Profile

LEAST: dict[str, Any] = {"memory": "4GB", "time_limit": "1h"}


def profile(**changes: Any) -> Profile:
    return Profile.model_validate(LEAST | changes)


def fault(**changes: Any) -> str:
    with pytest.raises(ValidationError) as raised:
        profile(**changes)
    (error,) = raised.value.errors()
    return error["msg"].removeprefix("Value error, ")


def test_a_short_profile_is_one_worker_on_one_node_with_nothing_shared():
    least = profile()
    assert (least.nodes, least.tasks_per_node, least.cpus_per_node, least.gpus_per_node) == (1, 1, 1, 0)
    assert (least.minutes, least.memory_mebibytes, least.allocations) == (60, 3814, 1)
    assert least.results == "private"
    assert not least.dashboard
    assert least.local_scratch == Path("/tmp")


def test_what_a_node_gives_is_what_its_workers_need_together():
    four = profile(tasks_per_node=4, cpus_per_task=8, gpus_per_task=2, gpu_type="a100", memory="64G")
    assert (four.cpus_per_node, four.gpus_per_node, four.memory_mebibytes) == (32, 8, 65536)


@pytest.mark.parametrize(
    ("workers", "part", "on_one", "gpus"),
    [(4, 0.5, 2, 2), (3, 0.5, 2, 2), (3, 0.33, 3, 1), (7, 0.143, 7, 1), (4, 1.0, 1, 4), (2, 3, 1, 6), (5, 0, 1, 0)],
)
def test_workers_that_share_gpus_ask_for_as_many_as_hold_them(workers: int, part: float, on_one: int, gpus: int):
    shared = profile(tasks_per_node=workers, gpus_per_task=part)
    assert (shared.workers_per_gpu, shared.gpus_per_node) == (on_one, gpus)


def test_a_profile_survives_being_written_as_json():
    full = profile(
        time_limit="1-12:00:00", shared_scratch=["/scratch"], virtual_environment="/envs/x", modules=["a/1"],
        sbatch={"exclusive": True, "nice": 5, "licenses": "x:1"}, memory="1.5T", object_store="1GiB",
    )  # fmt: skip
    assert Profile.model_validate_json(full.model_dump_json()) == full
    assert Profile.model_validate(full.model_dump(mode="json")) == full


@pytest.mark.parametrize("key", ["memory", "time_limit"])
def test_memory_and_time_must_be_given(key: str):
    with pytest.raises(ValidationError, match=f"(?s){key}.*Field required"):
        Profile.model_validate({name: value for name, value in LEAST.items() if name != key})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"memory": 4000}, "4000 bytes are too few to start Python and Ray: write the unit, as in 64GB"),
        ({"time_limit": "90"}, "`90` is no duration with a unit"),
        ({"gpus_per_task": 0.4}, "0.4 GPUs are neither whole ones nor a part that as many workers fill: write 1, 2,"),
        ({"gpus_per_task": 1.5}, "1.5 GPUs are neither whole ones"),
        ({"gpus_per_task": 5e-324}, "4.94066e-324 GPUs are neither"),
        ({"gpus_per_task": -0.5}, "Input should be greater than or equal to 0"),
        ({"gpus_per_task": True}, "`true` is a logical value to YAML"),
        ({"gpu_type": "a100"}, "gpu_type needs GPUs: set gpus_per_task, or remove it"),
        ({"virtual_environment": "/v", "container": "apptainer exec x"}, "virtual_environment brings its own Python"),
        ({"virtual_environment": "/v", "python": "/usr/bin/python3"}, "virtual_environment brings its own Python"),
        ({"virtual_environment": "envs/x"}, "`envs/x` must begin with /"),
        ({"shared_scratch": ["scratch"]}, "`scratch` must begin with /"),
        ({"object_store": "3GB"}, "object_store takes more than half of `memory`"),
        ({"object_store": "1MB"}, "Input should be greater than or equal to 80000000"),
        ({"signal_seconds": 3600}, "signal_seconds leaves nothing of a time limit of 1h"),
        ({"slurm": "21.08"}, "`21.08` does not say which versions: write >=21.08"),
        ({"sbatch": {"mem": "4G"}}, "`mem` is set by the key `memory` of the profile; use that"),
        ({"sbatch": {"--gres": "gpu:1"}}, "`--gres` is set by the key `gpus_per_task` of the profile; use that"),
        ({"sbatch": {"ntasks_per_node": 4}}, "`ntasks_per_node` is set by the key `tasks_per_node`"),
        ({"sbatch": {"job-name": "x"}}, "`job-name` is for ntksweep alone to set; remove it"),
        ({"sbatch": {"output": "x"}}, "`output` is for ntksweep alone to set; remove it"),
        ({"sbatch": {"export": "NONE"}}, "`export` is for ntksweep alone to set; remove it"),
        ({"sbatch": {"p": "main"}}, "`p` is not the long name of an option of sbatch"),
        ({"sbatch": {"exclusive": False}}, "`exclusive: false` says nothing to sbatch: leave the option out"),
        ({"sbatch": {"comment": "a\nb"}}, "the value of `comment` must be one line"),
        ({"sbatch": {"mail-type": "END", "mail_type": "ALL"}}, "`mail-type` is written twice, once as `mail_type`"),
    ],
)
def test_what_cannot_be_meant_says_what_to_change(changes: dict[str, Any], expected: str):
    assert fault(**changes).startswith(expected)


@pytest.mark.parametrize("key", ["partition", "account", "qos", "gpu_type", "constraint", "exclude"])
@pytest.mark.parametrize("text", ["a b", "a;b", "a\nb", "$(x)", "`x`", "'", ""])
def test_a_name_never_brings_more_into_the_script_than_a_name(key: str, text: str):
    assert "no name as Slurm has them" in fault(**{key: text, "gpus_per_task": 1})


@pytest.mark.parametrize("key", ["nodes", "tasks_per_node", "cpus_per_task", "allocations"])
def test_sizes_are_at_least_one(key: str):
    assert "greater than 0" in fault(**{key: 0})


def test_names_of_further_options_are_written_as_sbatch_writes_them():
    assert profile(sbatch={"mail_type": "END", "--nice": 5}).sbatch == {"mail-type": "END", "nice": 5}


def test_every_key_has_a_meaning_and_an_example_that_is_valid():
    for key, field in Profile.model_fields.items():
        assert field.description, key
        assert field.examples, key
        for example in field.examples:
            TypeAdapter(Annotated[(field.annotation, None, *field.metadata)]).validate_python(example)


def test_the_signal_comes_late_enough_to_be_told_from_a_preemption():
    assert "660 at most" in fault(signal_seconds=661)
    assert profile(signal_seconds=660).signal_seconds == 660
    assert "2820 at most" in fault(time_limit="4h", signal_seconds=2821)
    assert profile(time_limit="10m", signal_seconds=570).signal_seconds == 570  # so short that every one counts


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"container": 'apptainer exec "x'}, "a quotation mark is not closed"),
        ({"container": "module load x && apptainer exec y"}, "`&&` would reach it as it stands"),
        ({"container": "apptainer exec $IMAGE"}, "`$IMAGE` would reach it as it stands"),
        ({"container": "apptainer exec x; rm -r y"}, "no shell reads this command"),
        ({"container": " "}, "not empty"),
        ({"python": "python3\nrm"}, "one line of characters that can be seen"),
        ({"modules": ["a;rm"]}, "is not the name of one module"),
        ({"modules": ["a&&rm"]}, "is not the name of one module"),
        ({"modules": ["$(rm)"]}, "is not the name of one module"),
        ({"modules": ["`rm`"]}, "is not the name of one module"),
        ({"modules": ["a|b"]}, "is not the name of one module"),
        ({"modules": ["cuda python"]}, "list several as [a, b]"),
        ({"local_scratch": "~nosuchuser/x"}, "a user that this machine does not know"),
        ({"local_scratch": "/a\nb"}, "a character that cannot be seen"),
        ({"virtual_environment": "/" + "n" * 300}, "longer than a file system takes"),
        ({"local_scratch": "/" + "n/" * 3000}, "longer than a file system takes"),
        ({"nodes": True}, "`true` is a logical value to YAML"),
        ({"time_limit": "9" * 30 + "h"}, "is longer than any job may run"),
        ({"sbatch": {"comment": "a\x1bb"}}, "one line of characters that can be seen"),
    ],
)
def test_nothing_of_a_profile_becomes_more_than_it_says_in_a_script(changes: dict[str, Any], said: str):
    assert said in fault(**changes)
