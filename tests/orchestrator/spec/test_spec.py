"""The spec: what is accepted, and what each mistake is answered with."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from orchestrator.errors import SpecError
from orchestrator.spec import parse_spec, read_spec
from orchestrator.spec.grid_section import LambdaSection
from orchestrator.spec.listed import Logspace
from tests.orchestrator.spec.keys import KEYS, SECTIONS
from tests.orchestrator.sweeps import SPEC, changed, spec_of


def text_of(changes: dict[str, Any]) -> str:
    return yaml.safe_dump(changed(SPEC, changes), sort_keys=False)


def fault(changes: dict[str, Any]) -> str:
    with pytest.raises(SpecError) as raised:
        parse_spec(text_of(changes))
    return str(raised.value)


# --- what is accepted


def test_a_short_spec_is_filled_up_with_the_documented_defaults():
    spec = spec_of()
    assert spec.head.kind == "random"
    assert spec.head.in_kernel
    assert spec.kernel.kind == "sgd"
    assert spec.compute.gram_dtype == "float64"
    assert str(spec.folder) == "results/tiny"
    assert str(spec_of({"results.folder": "elsewhere"}).folder) == "elsewhere"


def test_numbers_written_as_yaml_1_1_does_not_read_them_are_numbers():
    # without a dot `1e-6` is a text to YAML 1.1
    text = text_of({}).replace("- 0.01", "- 1e-6")
    assert yaml.safe_load(text)["grid"]["lambdas"]["values"][0] == "1e-6"
    assert parse_spec(text).grid.lambdas.numbers() == (1e-6, 1.0)


def test_sizes_of_memory_are_written_with_units():
    assert spec_of({"compute.memory_budget": "2GB"}).compute.memory_budget == 2_000_000_000
    assert spec_of({"compute.memory_budget": "1GiB"}).compute.memory_budget == 1 << 30
    assert spec_of({"compute.memory_budget": None}).compute.memory_budget == 2_000_000_000


def test_yaml_anchors_and_merges_are_understood():
    text = text_of({}) + "head: &head\n  kind: random\n  seed: 3\n"
    merged = text.replace("compute:\n", "compute:\n  <<: {threads: 3}\n")
    assert parse_spec(merged).compute.threads == 3


def test_lambdas_are_ascending_and_without_repeats():
    assert spec_of({"grid.lambdas": {"values": [1.0, 0.01, 1.0]}}).grid.lambdas.numbers() == (0.01, 1.0)


@given(st.integers(-12, 6).map(lambda e: 10.0**e), st.integers(-12, 6).map(lambda e: 10.0**e), st.integers(2, 60))
def test_a_logspace_has_both_ends_and_its_count(start: float, stop: float, count: int):
    assume(start < stop)
    numbers = LambdaSection(logspace=Logspace(start=start, stop=stop, count=count)).numbers()
    assert len(numbers) == count
    assert numbers[0] == pytest.approx(start, rel=1e-11)
    assert numbers[-1] == pytest.approx(stop, rel=1e-11)
    ratios = [b / a for a, b in pairwise(numbers)]
    assert ratios == pytest.approx([ratios[0]] * len(ratios), rel=1e-9)


# --- unknown keys


@pytest.mark.parametrize(
    ("place", "nearest"),
    [
        ("modle", "model"),
        ("model.dtpye", "dtype"),
        ("task.lable", "label"),
        ("adapter.target", "target_modules"),
        ("head.inkernel", "in_kernel"),
        ("kernel.eigenvector", "eigenvectors"),
        ("grid.layersets", "layer_sets"),
        ("grid.lambdas.value", "values"),
        ("compute.worker", "workers"),
        ("results.prediction", "predictions"),
    ],
)
def test_an_unknown_key_names_its_line_and_the_nearest_valid_key(place: str, nearest: str):
    text = text_of({place: 1})
    key = place.rpartition(".")[2]
    (line,) = (number for number, line in enumerate(text.splitlines(), 1) if line.strip() == f"{key}: 1")
    with pytest.raises(SpecError) as raised:
        parse_spec(text, name="my.yaml")
    message = str(raised.value)
    assert message.startswith("my.yaml is not a valid spec")
    assert f"line {line}, {place}: unknown key `{key}`; did you mean `{nearest}`?" in message


@given(st.sampled_from([(s, k) for s, k in KEYS if len(k) > 4]), st.data())
def test_a_key_with_a_letter_missing_is_recognized_wherever_it_stands(place: tuple[str, str], data: st.DataObject):
    section, key = place
    position = data.draw(st.integers(1, len(key) - 1))
    typo = key[:position] + key[position + 1 :]
    assume(typo not in SECTIONS[section].model_fields)
    message = fault({f"{section}.{typo}": "anything"})
    assert f"{section}.{typo}: unknown key `{typo}`; did you mean `{key}`?" in message


def test_an_unknown_key_like_no_other_lists_the_valid_ones():
    assert (
        "unknown key `xyzzy`; valid keys: attention, dtype, path, revision, trust_remote_code, weights, weights_seed"
        in fault({"model.xyzzy": 1})
    )


def test_an_unknown_key_inside_a_layer_set_names_the_nearest_one():
    message = fault({"grid.layer_sets": ["each_layer", {"subset": 3}]})
    assert "grid.layer_sets.1.subset: unknown key `subset`; did you mean `subsets`?" in message


@pytest.mark.parametrize(("key", "nearest"), [("layer", "layers"), ("group", "groups")])
def test_every_form_of_a_layer_set_is_thought_of(key: str, nearest: str):
    assert f"unknown key `{key}`; did you mean `{nearest}`?" in fault({"grid.layer_sets": [{key: [[0]]}]})


def test_an_unknown_form_of_a_layer_set_lists_all_forms():
    assert "unknown key `xyzzy`; valid keys: groups, layers, subsets" in fault({"grid.layer_sets": [{"xyzzy": 1}]})


def test_two_forms_of_a_layer_set_in_one_do_not_go_together():
    message = fault({"grid.layer_sets": [{"layers": [[0]], "groups": [["0.query"]]}]})
    assert "`layers` does not go together with the other keys beside it" in message


def test_a_wrong_number_of_layers_is_told_as_such():
    message = fault({"grid.layer_sets": [{"subsets": 0}]})
    assert "grid.layer_sets.0.subsets: " in message
    assert "greater than 0" in message
    assert "unknown" not in message


def test_every_fault_of_a_spec_is_told_at_once():
    message = fault({"model.dtpye": 1, "task.kind": "clasification", "grid.n_train": []})
    assert "(3 faults)" in message
    assert "`dtpye`" in message
    assert "`clasification`" in message
    assert "grid.n_train" in message


def test_a_key_that_stands_twice_is_an_error_with_its_line():
    text = "name: a\n" + text_of({})
    with pytest.raises(SpecError, match=r"my.yaml: line 2: the key `name` is written twice"):
        parse_spec(text, name="my.yaml")
    nested = text_of({}).replace("  n_eval: 6\n", "  n_eval: 6\n  n_eval: 7\n")
    with pytest.raises(SpecError, match="the key `n_eval` is written twice"):
        parse_spec(nested)


# --- missing and wrong values


@pytest.mark.parametrize(
    "key",
    ["name", "model", "task", "adapter", "grid", "model.path", "task.n_eval", "adapter.target_modules", "grid.n_train"],
)
def test_a_missing_key_is_named(key: str):
    message = fault({key: None})
    section, _, last = key.rpartition(".")
    assert f"{section + ': ' if section else ''}the key `{last}` is missing" in message


def test_all_missing_keys_of_a_section_are_named_at_once():
    message = fault({"model": None, "grid": None, "task.data": None, "task.n_eval": None})
    assert "the keys `model` and `grid` are missing" in message
    assert "task: the keys `data` and `n_eval` are missing" in message


@pytest.mark.parametrize(
    ("key", "typo", "nearest"),
    [
        ("model.dtype", "floot32", "float32"),
        ("model.attention", "eagr", "eager"),
        ("task.kind", "clasification", "classification"),
        ("adapter.kind", "Lora", "lora"),
        ("head.kind", "rigde", "ridge"),
        ("kernel.outputs", "traces", "trace"),
        ("compute.executor", "rayy", "ray"),
        ("grid.layer_sets", ["each_layr"], "each_layer"),
    ],
)
def test_a_misspelled_choice_names_the_nearest_one(key: str, typo: Any, nearest: str):
    message = fault({key: typo})
    word = typo if isinstance(typo, str) else typo[0]
    assert f"`{word}` is not one of" in message
    assert f"did you mean `{nearest}`?" in message
    assert re.search(r"line \d+, " + key.replace(".", r"\."), message)


@pytest.mark.parametrize("text", ["", "# nothing here\n", "- a\n- list\n", "just a sentence", "---\n"])
def test_what_is_no_mapping_is_told_apart_from_a_spec(text: str):
    with pytest.raises(SpecError, match=r"my.yaml is empty or not a mapping; `ntksweep init` writes"):
        parse_spec(text, name="my.yaml")


@pytest.mark.parametrize("name", ["reviews.csv", "REVIEWS.TSV", "reviews.jsonl", "reviews.parquet"])
def test_data_in_the_place_of_a_spec_are_not_to_be_written_over(name: str, tmp_path: Path):
    data = tmp_path / name
    data.write_text("text,label\nA sentence.,0\n")
    with pytest.raises(SpecError) as raised:
        read_spec(data)
    assert f"`ntksweep init sweep.yaml --data {data}` writes a spec for data" in str(raised.value)


@pytest.mark.parametrize("text", ["name: [unclosed", "name: a\n\tmodel: b", "a: b: c"])
def test_what_is_not_yaml_is_told_with_its_place(text: str):
    with pytest.raises(SpecError, match=r"(?s)my.yaml is not YAML: .*line \d"):
        parse_spec(text, name="my.yaml")


def test_a_missing_spec_file_says_how_to_begin(tmp_path):
    with pytest.raises(SpecError, match=r"there is no spec at .*none.yaml; `ntksweep init .*none.yaml` writes one"):
        read_spec(tmp_path / "none.yaml")
    with pytest.raises(SpecError, match="cannot be read"):
        read_spec(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("name: größe".encode("latin-1"))
    with pytest.raises(SpecError, match="cannot be read"):
        read_spec(tmp_path / "latin.yaml")


@pytest.mark.parametrize("strength", [0, -1.0, 0.0, "-1e-3"])
def test_lambda_must_be_positive(strength: Any):
    message = fault({"grid.lambdas": {"values": [1.0, strength]}})
    assert "grid.lambdas.values.1: " in message
    assert "greater than 0" in message


@pytest.mark.parametrize("strength", [float("nan"), float("inf")])
def test_lambda_must_be_finite(strength: float):
    assert "grid.lambdas.values.0: " in fault({"grid.lambdas": {"values": [strength]}})


@pytest.mark.parametrize("end", ["start", "stop"])
def test_a_logspace_of_lambdas_must_be_positive(end: str):
    logspace = {"start": 0.1, "stop": 1.0, "count": 3} | {end: 0.0}
    assert f"grid.lambdas.logspace.{end}: " in fault({"grid.lambdas": {"logspace": logspace}})


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("grid.lambdas", {"values": []}, "the grid is empty: `values` needs at least one lambda"),
        ("grid.lambdas", {}, "give either `values` or `logspace`"),
        ("grid.layer_sets", [], "the list is empty; give at least one value"),
        ("grid.layer_sets", [{"layers": []}], "the list is empty; give at least one value"),
        ("grid.layer_sets", [{"layers": [[]]}], "the list is empty; give at least one value"),
        ("grid.layer_sets", [{"groups": [[]]}], "the list is empty; give at least one value"),
        ("grid.seeds", [], "the list is empty; give at least one value"),
        ("grid.n_train", [], "the list is empty; give at least one value"),
        ("adapter.target_modules", [], "the list is empty; give at least one value"),
    ],
)
def test_an_empty_axis_of_the_grid_is_named(key: str, value: Any, expected: str):
    message = fault({key: value})
    assert re.search(r"line \d+, " + key.replace(".", r"\."), message)
    assert expected in message


@pytest.mark.parametrize("key", ["grid.n_train", "task.n_eval", "adapter.rank", "compute.threads", "task.max_length"])
def test_sizes_must_be_positive(key: str):
    assert key in fault({key: [0] if key == "grid.n_train" else 0})


@pytest.mark.parametrize("name", ["", "a/b", "../up", "-x", "my sweep", "größe"])
def test_a_name_that_is_no_folder_name_is_refused(name: str):
    assert "use only letters, digits, - _ and . in a name" in fault({"name": name})


# --- rules that tie keys together


TWO_STRENGTHS = {"values": [1.0], "logspace": {"start": 0.1, "stop": 1.0, "count": 2}}

WORDS_HEAD = {"kind": "label_words", "words": ["bad", "good"], "in_kernel": False}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"grid.lambdas": TWO_STRENGTHS}, "give either `values` or `logspace`"),
        ({"kernel.outputs": "margin", "task.kind": "regression"}, "needs two classes"),
        ({"kernel.outputs": "margin", "task.classes": 3}, "needs two classes"),
        ({"compute.workers_per_gpu": 2}, "workers_per_gpu shares GPUs among workers: set `compute.device: cuda`"),
        (
            {
                "compute.workers_per_gpu": 2,
                "compute.device": "cuda",
                "sharding.group_size": 2,
                "model.dtype": "float32",
            },
            "each process of `sharding` needs a GPU for itself",
        ),
        ({"head.kind": "ridge", "grid.n_train": [5, 10]}, "give grid.n_train one value"),
        ({"head.kind": "logistic", "task.kind": "regression"}, "use ridge for regression"),
        ({"head": WORDS_HEAD, "task.kind": "regression"}, "label_words needs a classification task"),
        ({"head": WORDS_HEAD | {"in_kernel": True}}, "set `in_kernel: false`"),
        ({"head": WORDS_HEAD | {"words": []}}, "needs one word for each class"),
        ({"head.kind": "label_words"}, "`kind: label_words` needs one word for each class: give `words`"),
        ({"head.words": ["bad", "good"]}, "`words` is only for `kind: label_words`"),
        ({"task.text": "label"}, "`label` is the column of the texts and of the labels"),
        ({"task.text_pair": "label"}, "`label` is the column of the texts and of the labels"),
        ({"task.text_pair": "text"}, "`text` is the column of both texts of a pair"),
        ({"task.sign_cut": 0.5, "task.kind": "regression"}, "sign_cut makes classes of ratings"),
        ({"task.sign_cut": 0.5, "task.classes": 3}, "sign_cut makes exactly two classes"),
        ({"task.classes": 2, "task.kind": "regression"}, "classes belongs to classification"),
        ({"task.template": "It was"}, "template must contain {text}"),
        ({"task.template": "{text} {mask}"}, "{mask} is where label words are read: set `head.kind: label_words`"),
        ({"task.template": "{text} {mask} {mask}", "head": WORDS_HEAD}, "template may contain {mask} once"),
        ({"task.sampling": "balanced", "task.kind": "regression"}, "sampling: balanced needs classes"),
        ({"task.sampling": "first", "task.sample_seed": 1}, "sampling: first draws no examples: remove sample_seed"),
        ({"kernel.kind": "asymmetric_sign", "kernel.eigenvectors": True}, "set `eigenvectors: false`"),
    ],
)
def test_keys_that_do_not_go_together_say_which_to_change(changes: dict[str, Any], expected: str):
    assert expected in fault(changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"head.kind": "ridge", "grid.n_train": [5, 5]},
        {"head.kind": "ridge", "task.kind": "regression"},
        {"kernel.outputs": "margin", "task.classes": 2},
        {"head": WORDS_HEAD},
        {"kernel.kind": "asymmetric_sign"},
        {"task.sign_cut": 0.0},
        {"task.sampling": "balanced"},
        {"task.sampling": "first", "task.kind": "regression"},
        {"task.template": "{text} It was {mask}.", "head": WORDS_HEAD},
    ],
)
def test_keys_that_do_go_together_are_accepted(changes: dict[str, Any]):
    parse_spec(text_of(changes))


def test_seeds_that_would_all_compute_the_same_are_refused():
    fixed = {"grid.seeds": [0, 1], "task.sample_seed": 0, "adapter.seed": 0}
    assert spec_of(fixed).grid.seeds == (0, 1), "the head still follows the seeds"
    with pytest.raises(ValidationError, match="every seed would give the same numbers"):
        spec_of(fixed | {"head.seed": 0})
    as_they_stand = {"grid.seeds": [0, 1], "task.sampling": "first", "adapter.seed": 0, "head.seed": 0}
    with pytest.raises(ValidationError, match="every seed would give the same numbers"):
        spec_of(as_they_stand)


# --- devices and process groups


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sharding": {"group_size": 4}, "compute.workers": 6, "model.dtype": "float32"}, "give a multiple of 4"),
        ({"sharding": {"group_size": 0}}, "sharding.group_size"),
        ({"sharding": {"group_size": 2, "stage": 2}}, "set 3, which shards the weights, or 0"),
        ({"sharding": {"group_size": 2, "offload": "cpu"}}, "set `compute.device: cuda`"),
        ({"sharding": {"group_size": 2}, "model.dtype": "float16"}, "DeepSpeed has no float16 on CPUs"),
        ({"sharding": {"group_size": 2}, "model.dtype": "float64"}, "DeepSpeed has no float64"),
        ({"compute.tf32": True}, "is a precision of GPUs"),
        ({"model.weights_seed": 3}, "set `model.weights: random`"),
        (
            {"model.dtype": "bfloat16", "finetune": {"optimizer": "adamw", "epochs": 1, "learning_rate": 0.1}},
            "set `model.dtype: float32`",
        ),
        ({"kernel.decomposition": "iterative", "kernel.eigenvectors": True}, "needs every eigenvector"),
    ],
)
def test_what_devices_and_groups_cannot_is_said_with_what_can(changes: dict[str, object], said: str):
    assert said in fault(changes)


def test_a_stored_spec_says_every_key_and_reads_the_same():
    written = spec_of().model_dump(mode="json")
    assert written["sharding"] is None
    assert written["compute"]["device"] == "cpu"
    assert written == parse_spec(yaml.safe_dump(written)).model_dump(mode="json")


def test_rows_of_models_in_half_precision_are_single():
    assert spec_of({"model.dtype": "bfloat16"}).row_dtype == "float32"
    assert spec_of({"model.dtype": "float64"}).row_dtype == "float64"
    assert spec_of({"model.dtype": "bfloat16", "compute.row_dtype": "float16"}).row_dtype == "float16"
