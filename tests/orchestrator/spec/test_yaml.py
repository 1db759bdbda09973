"""YAML as people write it: what it stands for, and what each way to break it is answered with."""

import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.documents.composing import compose
from orchestrator.documents.node import YamlFault
from orchestrator.documents.writing import to_yaml
from orchestrator.errors import SpecError
from orchestrator.spec import parse_spec, read_spec
from tests.orchestrator.sweeps import SPEC, changed


def value_of(text: str) -> Any:
    root = compose(f"a: {text}")
    assert root is not None
    return root.value["a"]


def fault_of(text: str) -> str:
    with pytest.raises(YamlFault) as raised:
        compose(text)
    return str(raised.value)


def spec_fault(text: str) -> str:
    with pytest.raises(SpecError) as raised:
        parse_spec(text, name="my.yaml")
    return str(raised.value)


def with_value(key: str, written: str) -> str:
    """Return the tiny spec with a key written exactly so."""
    return yaml.safe_dump(changed(SPEC, {key: "PLACE"}), sort_keys=False).replace("PLACE", written)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("no", "no"), ("Yes", "Yes"), ("off", "off"), ("2001-02-30", "2001-02-30"), ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("010", 10), ("0o10", 8), ("0x1F", 31), ("1e-3", 1e-3), ("1.", 1.0), (".5", 0.5), ("-.inf", float("-inf")),
        ("true", True), ("False", False), ("~", None), ("", None), ("'true'", "true"), ('"\\x41"', "A"),
        ("!!str 5", "5"), ("!!float 5", 5.0), ("[a, {b: 1}]", ["a", {"b": 1}]), ("|\n  x\n  y\n", "x\ny\n"),
    ],
)  # fmt: skip
def test_words_stand_for_what_yaml_1_2_says(written: str, value: Any):
    assert value_of(written) == value
    assert type(value_of(written)) is type(value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False)
        | st.text(st.characters(codec="utf-8", exclude_characters="\x00\r\x85\u2028\u2029\ufeff"), max_size=12)
        | st.sampled_from(["1e5", "no", "0o7", "2001-01-01", "1:30", ".inf", "=", "<<", "012", "- a", "a: b", "#"]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "no"]), inner, max_size=3),
        max_leaves=8,
    )
)  # fmt: skip
def test_what_is_written_reads_back_as_it_was(value: Any):
    root = compose(to_yaml({"value": value}))
    assert root is not None
    assert root.value == {"value": value}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 1000 + "]" * 1000, "are nested more than 30 levels deep"),
        ("\n".join(" " * level + "a:" for level in range(100)), "30 levels deep"),
        ("a: " + "9" * 5000, "line 1: a number of 5000 digits"),
        ('a: "\\UFFFFFFFF"', "line 1: an escape with \\U names no character"),
        ('a: "\\uD800"', "line 1: a text holds U+D800"),
        ('a: "\\0"', "line 1: a text holds U+0000"),
        ("a: !!int x", "`x` is not what its tag `!!int` says"),
        ("a: !!bool maybe", "leave the tag out"),
        ("a: !!set {x}", "the tag `!!set` means nothing here"),
        ("a: !!python/name:os.system x", "means nothing here"),
        ("a: 1\nb: 2\na: 3", "line 3: the key `a` is written twice"),
        ("a:\n\tb: 1", "line 2, column 1: a tab is here"),
        ("a:\t1", "line 1, column 3: a tab is here; YAML indents and separates with spaces"),
        ("a: \x07", "line 1, column 4: the character U+0007"),
        ("a: *x", "line 1: `*x` stands for what `&x` marks"),
        ("a: &x [*x]", "would never end"),
        ("a: 1\n---\nb: 2", "line 2: a second document begins here"),
        ("? [1]\n: 2", "line 1: a key must be a name"),
        ("<<: 3", "`<<` takes a mapping"),
        ("a: @b", "`@` cannot begin a text"),
        ('a: "b', "line 1, column 4: the quotation mark that begins here is never closed"),
        ("a: [1, 2", "lacks a comma, or its closing `]`"),
        ("a: b: c", "a second colon"),
        ("a: 1\n  b: 2", "a second colon"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_told_with_its_line(text: str, said: str):
    assert said in fault_of(text)


def test_aliases_of_aliases_are_counted_before_they_fill_the_memory():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    assert "this holds more than 1,000,000 values" in fault_of("\n".join(lines))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name: gr\xf6\xdfe", "line 1, column 9: byte 0xf6 is not UTF-8"),
        ("name: a".encode("utf-16"), "it is UTF-16; save it as UTF-8"),
        (b"#" * (5 << 20), "it is larger than 4 MiB"),
    ],
)
def test_a_file_that_is_no_text_is_told(tmp_path: Path, content: bytes, said: str):
    (tmp_path / "sweep.yaml").write_bytes(content)
    with pytest.raises(SpecError, match="cannot be read: ") as raised:
        read_spec(tmp_path / "sweep.yaml")
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("name", "said"), [("", "it is a folder"), ("/dev/zero", "a device or a pipe"), ("x" * 300, "File name too long")]
)
def test_what_is_no_file_is_told(tmp_path: Path, name: str, said: str):
    with pytest.raises(SpecError, match=said):
        read_spec(tmp_path / name)


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path: Path):
    import os

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SpecError, match="a device or a pipe"):
        read_spec(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("key", "written", "said"),
    [
        ("head.words", "[true, fine]", 'YAML reads `true` as the logical value true, and this is a text: write it in '
         'quotes, as "true"'),
        ("task.text", "1900", 'YAML reads `1900` as a number, and this is a text: write it in quotes, as "1900"'),
        ("task.text", "null", "YAML reads `null` as nothing"),
        ("task.text", "", "there is no value here; give a text"),
        ("task.text", "[a]", "a list cannot be used here; give a text"),
        ("adapter.rank", "true", "`true` is a logical value to YAML; give a number"),
        ("adapter.rank", "eight", "`eight` is not a whole number"),
        ("adapter.rank", "8.5", "`8.5` is not a whole number"),
        ("head.in_kernel", "maybe", "`maybe` is not true or false"),
        ("adapter", "3", "`3` cannot be used here; give keys of its own"),
        ("head.words", "good", "`good` cannot be used here; give a list, as in [a, b]"),
        ("compute.device", "gpu", "`gpu` is not one of cpu, cuda; did you mean `cuda`?"),
        ("model.dtype", "BF16", "did you mean `bfloat16`?"),
        ("compute.memory_budget", "lots", "`lots` is not a size; write the number and the unit, as in 64GB"),
    ],
)  # fmt: skip
def test_a_value_of_another_kind_says_what_yaml_read_and_what_to_write(key: str, written: str, said: str):
    message = spec_fault(with_value(key, written))
    assert said in message
    assert f", {key}" in message


def test_words_that_are_logical_values_to_other_readers_are_words():
    head = "head: {kind: label_words, words: [no, yes], in_kernel: no}\n"
    assert parse_spec(yaml.safe_dump(dict(SPEC)) + head).head.words == ("no", "yes")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("grid.seeds", [2**63], "must be at most 9,223,372,036,854,775,807"),
        ("grid.seeds", [-1], "must be at least 0"),
        ("task.sample_seed", -1, "must be at least 0"),
        ("adapter.seed", 2**63, "must be at most 9,223,372,036,854,775,807"),
        ("compute.threads", 10**9, "must be at most 4,096"),
        ("compute.workers", 10**9, "must be at most 4,096"),
        ("adapter.rank", 10**9, "must be at most 65,536"),
        ("task.max_length", 10**30, "must be at most 1,000,000,000"),
        ("grid.n_train", [10**30], "must be at most 1,000,000,000"),
        ("grid.lambdas", {"logspace": {"start": 0.1, "stop": 1.0, "count": 10**8}}, "must be at most 10,000"),
        ("grid.lambdas", {"values": [1e-310]}, "must lie between 1e-100 and 1e+100"),
        ("grid.lambdas", {"values": [1e300]}, "must lie between 1e-100 and 1e+100"),
        ("grid.layer_sets", [{"subsets": 10**9}], "must be at most 1,000"),
        ("head.l2_penalty", 1e-320, "must lie between"),
        ("compute.memory_budget", "9" * 15 + "GB", "must lie between 1KB and 1PB"),
        ("grid.seeds", list(range(60_000)) + list(range(60_000, 120_000)), "make more than 100,000 combinations"),
        ("results.folder", "~nosuchuser/x", "`~nosuchuser` is the home of a user that this machine does not know"),
        ("model.path", "~nosuchuser/x", "`~nosuchuser` is the home of a user that this machine does not know"),
        ("model.path", "x" * 300, "a name in this path has 300 bytes"),
        ("results.folder", "a\nb", "a character that cannot be seen"),
    ],
)  # fmt: skip
def test_what_lies_beyond_the_bounds_is_told_by_name(key: str, value: Any, said: str):
    message = spec_fault(yaml.safe_dump(changed(SPEC, {key: value}), sort_keys=False))
    assert said in message
    assert key in message or "grid" in message


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"max_length": 8}, "max_length: unknown key `max_length`; `max_length` is a key of `task`: put it there"),
        ({"adapter.head": 1}, "unknown key `head`; `head` begins at the left margin"),
        ({"grid.rank": 4}, "unknown key `rank`; did you mean `ranks`? `rank` is a key of `adapter`: put it there"),
        ({"grid.layer_sets": ["all_layer"]}, "each_target; did you mean `all_layers`? Or a mapping with one of the "
         "keys subsets, layers, groups"),
        ({"grid.layer_sets": [True]}, "pairs, all_layers, each_target; or a mapping with one of the keys subsets"),
        ({"adapter.TARGET_MODULES": ["x"]}, "unknown key `TARGET_MODULES`; did you mean `target_modules`?"),
        ({"task.n\u00a0_eval": 1}, "unknown key `n\\xa0_eval`; did you mean `n_eval`?"),
        ({"adapter.kind": "\nlora\x1b"}, "adapter.kind: `\\nlora\\x1b` is not one of lora, none"),
    ],
)  # fmt: skip
def test_a_key_in_the_wrong_place_is_told_where_it_belongs_on_one_line(tree: dict[str, Any], said: str):
    message = spec_fault(to_yaml(changed(SPEC, tree)))
    assert said in message
    assert len(message.splitlines()) == 2


WRITTEN = {
    "a tag in a word": ("name: tiny", "name: ti!!int _ny", "use only letters"),
    "a tag on a text": ("kind: classification", 'kind: !!int "x"', "line 7: `x` is not what its tag `!!int` says"),
    "a tag on nothing": ("rank: 2", 'rank: !!float ""', "nothing stands behind the tag `!!float`"),
    "no such date": ("dtype: float64", "dtype: 2001-02-30", "line 4, model.dtype: `2001-02-30` is not one of float32"),
    "no such month": ("path: model", "path: 2001-99-99", None),
    "more than any count": ("rank: 2", f"rank: 1{'0' * 30}", "must be at most 65,536"),
    "digits without end": ("name: tiny", f"name: {'9' * 5000}", "line 1: a number of 5000 digits"),
    "a text between keys": ("model:", '"\\UFFFFFFFF"e\nmodel:', "line 2: an escape with \\U names no character"),
    "a brace in a word": ("path: model", "path: mo}del", None),
    "a character without a face": ("path: model", 'path: "\\x00"', "line 3: a text holds U+0000"),
    "a plus": ("name: tiny", "name: +", "use only letters"),
    "brackets": ("target_modules:", f"target_modules: {'[' * 1000}", "more than 30 levels deep"),
    "a list that ends early": ("path: model", "path: [model", "not YAML"),
    "a comment for a value": ("rank: 2", "rank: #2", "there is no value here; give a whole number"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRITTEN)
def test_what_editors_and_strangers_leave_in_a_spec(case: str):
    old, new, said = WRITTEN[case]
    text = yaml.safe_dump(dict(SPEC), sort_keys=False)
    assert old in text
    spoilt = text.replace(old, new, 1)
    if said is None:
        assert parse_spec(spoilt)
    else:
        assert said in spec_fault(spoilt)


def test_of_a_list_its_first_fault_is_told_and_of_a_mapping_with_thousands_of_keys_the_number():
    began = time.process_time()
    message = spec_fault(with_value("grid.seeds", f"[{', '.join(['x'] * 20_000)}]"))
    assert message.count("\n") == 1
    assert "grid.seeds.0: `x` is not a whole number" in message
    keys = "".join(f"  key{number}: 1\n" for number in range(1001))
    message = spec_fault(f"{yaml.safe_dump(dict(SPEC))}head:\n{keys}")
    assert "more than 1,000 keys stand here" in message
    assert time.process_time() - began < 5


def test_the_largest_seed_is_accepted():
    spec = parse_spec(yaml.safe_dump(changed(SPEC, {"grid.seeds": [2**63 - 1]})))
    assert spec.grid.seeds == (2**63 - 1,)
