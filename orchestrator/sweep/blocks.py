"""Kernel blocks: sums of the products of some groups, which layer sets add up to their kernels."""

from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache

from orchestrator.sweep.layer_sets import HEAD

Block = tuple[str, ...]
"""Groups whose products a block sums, in the model's order."""

_BETWEEN = "+"


def block_name(block: Block) -> str:
    """Return the name of a block in artifacts: its groups, joined by `+`."""
    return _BETWEEN.join(block)


@lru_cache(maxsize=4096)  # every layer set looks through all blocks
def groups_of(name: str) -> Block:
    """Return the groups of the block of a name."""
    return tuple(name.split(_BETWEEN))


def atoms(groups: Sequence[str], sets: Iterable[Collection[str]]) -> tuple[Block, ...]:
    """Return the coarsest blocks from which the kernel of every set can be added up.

    Groups that stand in exactly the same sets share a block; the head has one of its own, which the split of a kernel
    into the head's part and the rest needs.

    Args:
        groups: all groups, in the model's order.
        sets: some sets of them.
    """
    where: dict[str, list[int]] = {group: [] for group in groups}
    for number, members in enumerate(sets):
        for group in members:
            where[group].append(number)
    found: dict[tuple[int, ...], list[str]] = {}
    for group in groups:
        if group != HEAD:
            found.setdefault(tuple(where[group]), []).append(group)
    head = [(HEAD,)] if HEAD in where else []
    return (*(tuple(block) for block in found.values()), *head)


def blocks_within(groups: Collection[str], stored: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the largest stored blocks that lie within some groups, in the order of `stored`.

    Stored blocks are disjoint, or one lies within another, which stands for it.
    """
    wanted = frozenset(groups)
    within = {name: block for name in stored if wanted.issuperset(block := groups_of(name))}
    if sum(map(len, within.values())) == len(set().union(*within.values())):
        return tuple(within)
    taken: set[str] = set()
    for name, block in sorted(within.items(), key=lambda each: -len(each[1])):
        if taken.isdisjoint(block):
            taken.update(block)
        else:
            del within[name]
    return tuple(within)


def lacking(groups: Collection[str], stored: Iterable[str]) -> list[str]:
    """Return the groups that are in none of the stored blocks that lie within `groups`: without any, they add up."""
    held = {group for name in blocks_within(groups, stored) for group in groups_of(name)}
    return [group for group in groups if group not in held]
