"""Kernel blocks: the coarsest ones from which every layer set can be added up."""

import hypothesis.strategies as st
from hypothesis import given

from orchestrator.sweep.blocks import atoms, block_name, blocks_within, groups_of, lacking
from orchestrator.sweep.layer_sets import HEAD

GROUPS = tuple(f"{layer}.{target}" for layer in range(4) for target in ("q", "v"))


def test_layers_are_atoms_of_prefixes_and_suffixes():
    layers = [(f"{layer}.q", f"{layer}.v") for layer in range(4)]
    prefixes = [sum(layers[: n + 1], ()) for n in range(4)]
    suffixes = [sum(layers[n:], ()) for n in range(4)]
    assert atoms(GROUPS, [*layers, *prefixes, *suffixes]) == tuple(layers)
    assert atoms(GROUPS, prefixes[-1:]) == (GROUPS,)


def test_the_head_has_a_block_of_its_own():
    groups = (*GROUPS, HEAD)
    assert atoms(groups, [groups]) == (GROUPS, (HEAD,))


@given(st.lists(st.sets(st.sampled_from(GROUPS), min_size=1), min_size=1, max_size=6))
def test_every_set_is_a_sum_of_atoms_and_no_two_atoms_could_be_one(sets: list[set[str]]):
    found = atoms(GROUPS, sets)
    assert sorted(group for block in found for group in block) == sorted(GROUPS)
    names = [block_name(block) for block in found]
    assert [groups_of(name) for name in names] == list(found)
    for members in sets:
        within = blocks_within(members, names)
        assert {group for name in within for group in groups_of(name)} == members
        assert not lacking(members, names)
    signatures = {tuple(group in members for members in sets for group in block[:1]) for block in found}
    assert len(signatures) == len(found)


def test_a_set_that_cuts_a_block_lacks_groups():
    assert lacking(["0.q", "0.v", "1.q"], ["0.q+0.v", "1.q+1.v"]) == ["1.q"]
