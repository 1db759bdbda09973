"""Which kernel blocks are stored: those of the first layer sets, and for sets that join later those that were lacking.

A layer set that joins a sweep whose blocks are atoms may cut some of them, and one that joins any sweep may have groups
that no set had before. What is there stays, and so does what was computed of it; the groups that the set lacks, and no
others, are multiplied, into blocks of the atoms of all sets so far, or into one for each group. A kernel is the sum of
the largest stored blocks within its layer set. As every block is the union of later ones, two blocks are disjoint or
one lies within the other, and that sum is the same in whatever order blocks are found.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.sweep.blocks import Block, atoms, block_name, blocks_within, lacking
from orchestrator.sweep.layer_sets import expand_layer_sets
from orchestrator.sweep.sizes import Sizes

if TYPE_CHECKING:
    from orchestrator.sweep.variant import Variant

MOST_BYTES = 10 * 10**9
"""Most bytes of a seed's blocks of single groups, where `kernel.blocks` is auto."""

Groups = tuple[str, ...]


@dataclass(frozen=True)
class Refinement:
    """Kernel blocks that were asked for together.

    Attributes:
        blocks: the blocks; a stage `gram` makes a tile of each.
        rows: groups of the rows that they are products of, one of the variant's `row_sets`.
    """

    blocks: tuple[Block, ...]
    rows: Groups


def row_sets(variant: "Variant") -> tuple[Groups, ...]:
    """Return the groups of the Jacobian rows that a results folder was asked for, run by run, and a variant's at last.

    Rows are those of all groups that some layer set has. A set that joins with other groups does not change the rows
    that were asked for before it, nor what is made of them.
    """
    return tuple(dict.fromkeys(each.sizes.groups for each in (*variant.asked_before, variant)))


def refinements(variant: "Variant") -> tuple[Refinement, ...]:
    """Return the blocks that the kernels of a variant are summed of, in the order in which they were asked for.

    Without a results folder that was asked for others before there is one refinement at most, the coarsest one.
    """
    by_atoms = _by_atoms(variant)
    known: list[Groups] = []
    found: list[Refinement] = []
    before = (each for each in variant.asked_before if _by_atoms(each) == by_atoms)
    for asked in (*before, variant):
        known += _sets(asked) if by_atoms else ()
        needed = _lacked(asked, found, known) if by_atoms else {*asked.sizes.dual_groups} - {*_names(found)}
        if needed:
            ordered = tuple(group for group in asked.sizes.groups if group in needed)
            within = [[group for group in groups if group in needed] for groups in known]
            blocks = atoms(ordered, within) if by_atoms else tuple((group,) for group in ordered)
            found.append(Refinement(blocks, variant.rows_with(ordered)))
    if len(found) > 1:
        used = {number for groups in _summed(variant, known) for number in refinements_of(groups, found)}
        found = [found[number] for number in sorted(used)]
    return tuple(found)


def _lacked(asked: "Variant", found: Sequence[Refinement], known: Sequence[Groups]) -> set[str]:
    """Return the groups that kernels have and that no sum of the blocks found so far gives them."""
    stored = _names(found)
    return {group for groups in _summed(asked, known) for group in lacking(groups, stored)}


def refinements_of(groups: Sequence[str], found: Sequence[Refinement]) -> tuple[int, ...]:
    """Return the positions of the refinements whose blocks the kernel of some groups is summed of."""
    if len(found) == 1:
        return (0,)
    used = set(blocks_within(groups, _names(found)))
    return tuple(number for number, each in enumerate(found) if not used.isdisjoint(_names([each])))


def _names(found: Iterable[Refinement]) -> list[str]:
    return [block_name(block) for each in found for block in each.blocks]


def _by_atoms(variant: "Variant") -> bool:
    """Tell whether groups share blocks: where `kernel.blocks` says so, or says auto and there would be too many."""
    wanted = variant.sweep.spec.kernel.blocks
    if wanted != "auto":
        return wanted == "atoms"
    sizes = variant.sizes
    M, M_eval = sizes.kernel_rows(sizes.n_train), sizes.kernel_rows(sizes.n_eval)
    return 8 * (M * (M + 1) // 2 + M_eval * M) * len(sizes.dual_groups) >= MOST_BYTES


def asked_before(variant: "Variant") -> Iterator["Variant"]:
    """Yield the variant as its results folder was asked for it before, where its rows can stay as they were.

    They cannot in other shards, nor with other groups where the size of batches follows from the memory of all groups.
    """
    measured = variant.sweep.spec.compute.tokens_at_once == "auto"
    head_in_kernel = variant.sweep.spec.head.in_kernel
    for asked in variant.sweep.blocks_asked:
        sweep = replace(variant.sweep, spec=asked.within(variant.sweep.spec))
        sets = tuple(expand_layer_sets(asked.layer_sets, variant.survey.groups, head_in_kernel=head_in_kernel))
        sizes = Sizes.of(sweep, variant.survey, sets)
        same_groups = sizes.groups == variant.sizes.groups
        if sizes.shard_examples == variant.sizes.shard_examples and (same_groups or not measured):
            yield replace(variant, sweep=sweep, sizes=sizes, layer_sets=sets)


def _sets(variant: "Variant") -> list[Groups]:
    """Return what tells atoms apart: layer sets, and layers where they are added to sets that lack them."""
    sets = [each.groups for each in variant.layer_sets]
    if variant.sweep.spec.kernel.additions:
        # Each layer is added to sets that lack it, so that no block may span several.
        layers = {group.layer for group in variant.survey.groups}
        sets += [tuple(group.name for group in variant.survey.groups if group.layer == layer) for layer in layers]
    return [_dual(variant, groups) for groups in sets]


def _summed(variant: "Variant", known: Sequence[Groups]) -> list[Groups]:
    """Return what blocks are added up to: kernels of layer sets, and where layers are added also every atom."""
    sizes, grid = variant.sizes, variant.sweep.spec.grid
    kernels = [
        _dual(variant, each.groups)
        for each in variant.layer_sets
        if any(sizes.method(each, n_train) == "dual" for n_train in grid.n_train)
    ]
    if not variant.sweep.spec.kernel.additions:
        return kernels
    return [*kernels, *atoms(sizes.dual_groups, [_dual(variant, groups) for groups in known])]


def _dual(variant: "Variant", groups: Sequence[str]) -> Groups:
    return tuple(group for group in groups if group in variant.sizes.dual_groups)
