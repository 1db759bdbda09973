"""Layer sets: what each choice of a spec expands to, and names that say what a set holds."""

from collections.abc import Sequence
from itertools import combinations, pairwise
from math import comb
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from orchestrator.errors import SpecError
from orchestrator.spec.grid_section import LayerSetChoice
from orchestrator.sweep.layer_sets import HEAD, GroupFacts, LayerSet, compress, expand_layer_sets
from tests.orchestrator.sweeps import groups_of

FAMILIES = ("each_layer", "prefixes", "suffixes", "pairs", "all_layers", "each_target")
TARGETS = ("query", "value", "attention.output.dense", "output.dense")


def expand(choices: Sequence[Any], groups: Sequence[GroupFacts], *, head: bool = True) -> list[LayerSet]:
    checked = TypeAdapter(tuple[LayerSetChoice, ...]).validate_python(choices)
    return expand_layer_sets(checked, groups, head_in_kernel=head)


def layers_of(sets: Sequence[LayerSet]) -> list[tuple[int, ...]]:
    return [layer_set.layers for layer_set in sets]


@st.composite
def models(draw: st.DrawFn) -> list[GroupFacts]:
    """Groups of a model whose layers need not be alike, with modules outside the layers and a head, or without."""
    numbers = sorted(draw(st.sets(st.integers(0, 12), min_size=1, max_size=5)))
    groups = []
    for layer in numbers:
        for target in draw(st.lists(st.sampled_from(TARGETS), unique=True, min_size=1)):
            groups.append(GroupFacts(f"{layer}.{target}", layer, target, draw(st.integers(0, 50))))
    if draw(st.booleans()):
        groups.append(GroupFacts("pooler.dense", None, "pooler.dense", 7))
    if draw(st.booleans()):
        groups.append(GroupFacts(HEAD, None, HEAD, 3))
    return groups


@st.composite
def choices_of(draw: st.DrawFn, groups: Sequence[GroupFacts]) -> list[Any]:
    """Some choices that the model can meet."""
    layers = sorted({group.layer for group in groups if group.layer is not None})
    usable = [family for family in FAMILIES if family != "pairs" or len(layers) > 1]
    some_layers = st.lists(st.sampled_from(layers), min_size=1, max_size=4)
    some_groups = st.lists(st.sampled_from([g.name for g in groups if g.name != HEAD]), min_size=1, max_size=4)
    choice = st.one_of(
        st.sampled_from(usable),
        st.builds(lambda size: {"subsets": size}, st.integers(1, 6)),
        st.builds(lambda sets: {"layers": sets}, st.lists(some_layers, min_size=1, max_size=3)),
        st.builds(lambda sets: {"groups": sets}, st.lists(some_groups, min_size=1, max_size=3)),
    )
    return draw(st.lists(choice, min_size=1, max_size=4))


def meaning(name: str, groups: Sequence[GroupFacts]) -> set[str]:
    """Return the groups, without the head, that a name stands for, read as a reader of the table would."""
    kind, _, rest = name.partition(":")
    if kind == HEAD:
        return set()
    if kind == "groups":
        return set(rest.split("+"))
    if kind == "target":
        return {group.name for group in groups if group.target == rest and group.name != HEAD}
    assert kind == "layers"
    layers: set[int] = set()
    for part in rest.split(","):
        first, _, last = part.partition("-")
        layers |= set(range(int(first), int(last or first) + 1))
    assert layers <= {group.layer for group in groups}
    return {group.name for group in groups if group.layer in layers}


# --- families


@given(st.integers(1, 7), st.integers(1, 7))
def test_families_are_what_they_are_called(n: int, size: int):
    groups = groups_of(n, ("query", "value"))
    layers = range(n)
    assert layers_of(expand(["each_layer"], groups)) == [(layer,) for layer in layers]
    assert layers_of(expand(["prefixes"], groups)) == [tuple(range(stop + 1)) for stop in layers]
    assert layers_of(expand(["suffixes"], groups)) == [tuple(range(start, n)) for start in reversed(layers)]
    assert layers_of(expand(["all_layers"], groups)) == [tuple(layers)]
    subsets = expand([{"subsets": size}], groups)
    assert len(subsets) == sum(comb(n, length) for length in range(1, min(size, n) + 1))
    assert {layer_set.layers for layer_set in subsets} == {
        chosen for length in range(1, min(size, n) + 1) for chosen in combinations(layers, length)
    }
    if n > 1:
        assert layers_of(expand(["pairs"], groups)) == list(combinations(layers, 2))


def test_each_target_takes_one_target_of_all_layers_and_modules_outside():
    groups = [*groups_of(2, ("query", "value")), GroupFacts("pooler.dense", None, "pooler.dense", 5)]
    sets = expand(["each_target"], groups, head=False)
    assert [s.name for s in sets] == ["target:query", "target:value", "target:pooler.dense"]
    assert sets[0].groups == ("0.query", "1.query")
    assert sets[2].layers == ()


def test_listed_layers_and_groups_are_taken_in_any_order():
    groups = groups_of(4, ("query", "value"))
    (layers,) = expand([{"layers": [[3, 0, 1, 3]]}], groups)
    assert layers.name == "layers:0-1,3"
    (mixed,) = expand([{"groups": [["3.value", "0.query"]]}], groups)
    assert mixed.name == "groups:0.query+3.value"
    assert mixed.groups == ("0.query", "3.value", HEAD)


# --- sets


@given(st.data())
def test_sets_are_distinct_and_their_names_say_what_they_hold(data: st.DataObject):
    groups = data.draw(models())
    head = data.draw(st.booleans())
    sets = expand(data.draw(choices_of(groups)), groups, head=head)
    assert len({layer_set.groups for layer_set in sets}) == len(sets)
    assert len({layer_set.name for layer_set in sets}) == len(sets)
    order = [group.name for group in groups]
    for layer_set in sets:
        assert set(layer_set.groups) - {HEAD} == meaning(layer_set.name, groups)
        assert list(layer_set.groups) == sorted(layer_set.groups, key=order.index)


@given(st.data())
def test_sets_come_in_the_order_in_which_the_spec_first_describes_them(data: st.DataObject):
    groups = data.draw(models())
    choices = data.draw(choices_of(groups))
    one_by_one = [layer_set.groups for choice in choices for layer_set in expand([choice], groups)]
    assert [layer_set.groups for layer_set in expand(choices, groups)] == list(dict.fromkeys(one_by_one))


@given(st.data())
def test_sizes_and_layers_are_those_of_the_groups(data: st.DataObject):
    groups = data.draw(models())
    facts = {group.name: group for group in groups}
    for layer_set in expand(data.draw(choices_of(groups)), groups):
        members = [facts[name] for name in layer_set.groups]
        assert layer_set.n_parameters == sum(group.n_parameters for group in members)
        assert layer_set.layers == tuple(sorted({g.layer for g in members if g.layer is not None}))


@given(st.data())
def test_a_head_in_the_kernel_joins_every_set_and_one_outside_joins_none(data: st.DataObject):
    groups = [group for group in data.draw(models()) if group.name != HEAD] + [GroupFacts(HEAD, None, HEAD, 3)]
    choices = data.draw(choices_of(groups))
    inside, outside = expand(choices, groups, head=True), expand(choices, groups, head=False)
    assert [s.name for s in inside] == [s.name for s in outside]
    for with_head, without in zip(inside, outside, strict=True):
        assert with_head.groups == (*without.groups, HEAD)
        assert with_head.n_parameters == without.n_parameters + 3


def test_the_head_alone_is_a_set():
    (alone,) = expand([{"groups": [[HEAD]]}], groups_of(2, ("query",)))
    assert (alone.name, alone.groups, alone.layers) == (HEAD, (HEAD,), ())


def test_families_that_coincide_count_once():
    groups = groups_of(2, ("query",))
    everything = ["each_layer", "prefixes", "suffixes", "pairs", "all_layers", {"subsets": 2}, "each_target"]
    assert [s.name for s in expand(everything, groups)] == ["layers:0", "layers:1", "layers:0-1"]


# --- what does not exist


def test_a_layer_that_does_not_exist_is_told_with_those_that_do():
    groups = [GroupFacts(f"{layer}.query", layer, "query", 1) for layer in (0, 1, 2, 5)]
    with pytest.raises(SpecError, match=r"layer 4 does not exist or has no target; layers: 0-2,5"):
        expand([{"layers": [[0], [1, 4]]}], groups)


def test_a_group_that_does_not_exist_is_told_with_the_nearest():
    with pytest.raises(SpecError, match=r"there is no group `1.quer`; nearest: 1.query"):
        expand([{"groups": [["1.quer"]]}], groups_of(2, ("query", "value")))
    with pytest.raises(SpecError, match=r"there is no group `xyzzy`; nearest: 0.query"):
        expand([{"groups": [["xyzzy"]]}], groups_of(2, ("query", "value")))


def test_naming_a_head_that_is_out_of_the_kernel_says_so():
    with pytest.raises(SpecError, match=r"no group `head`.*the head is out of the kernel \(head.in_kernel\)"):
        expand([{"groups": [[HEAD]]}], groups_of(2, ("query",)), head=False)


@pytest.mark.parametrize(("choice", "layers"), [("pairs", 1), ("each_layer", 0), ("all_layers", 0), ("prefixes", 0)])
def test_a_choice_that_describes_nothing_is_refused(choice: str, layers: int):
    groups = [*groups_of(layers, ("query",)), GroupFacts("pooler.dense", None, "pooler.dense", 5)]
    with pytest.raises(SpecError, match=f"`{choice}` describes no layer set of this model"):
        expand([choice], groups)


# --- names


@given(st.sets(st.integers(0, 40), min_size=1))
def test_compressed_numbers_can_be_read_back_and_have_no_gap_to_close(numbers: set[int]):
    text = compress(sorted(numbers))
    ends = [tuple(map(int, part.split("-"))) for part in text.split(",")]
    runs = [range(end[0], end[-1] + 1) for end in ends]
    assert [number for run in runs for number in run] == sorted(numbers)
    assert all(run.stop < following.start for run, following in pairwise(runs))
