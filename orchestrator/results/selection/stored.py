"""Stored kernel blocks of a sweep, layer by layer, and values of a criterion for sums of them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from ntk_dist.arrays import FloatArray
from orchestrator.errors import DamagedArtifactError, ResultsError
from orchestrator.results.selection.criteria import Criterion
from orchestrator.stages.base.cells import Solve
from orchestrator.stages.context.work import Work
from orchestrator.stages.context.worker_state import WorkerState
from orchestrator.stages.solve.path import Strengths, follow
from orchestrator.stages.solve.solver import Solver
from orchestrator.store.stage import Stage
from orchestrator.sweep.blocks import block_name, lacking
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.layer_sets import HEAD, compress, expand_layer_sets
from orchestrator.sweep.refinements import refinements_of
from orchestrator.sweep.variant import Variant

TILES = ("tiles", "eval_tiles")
"""Roles of the kernel blocks that a solve stage reads."""


@dataclass(frozen=True, eq=False)
class Kernel:
    """The kernel of a set of layers.

    Attributes:
        train: K(train, train), (M, M), in Fortran order; of a symmetric kernel the lower triangle alone.
        evaluation: K(eval, train), (M_eval, M).
    """

    train: FloatArray
    evaluation: FloatArray

    def plus(self, block: "Kernel") -> "Kernel":
        """Return the sum with a block, in the memory of that block, which must not be used afterwards."""
        # In place, so that a candidate costs no more memory than its own block.
        return Kernel(np.add(block.train, self.train, out=block.train), block.evaluation + self.evaluation)


class StoredKernels:
    """The kernel blocks of one seed at the largest training-set size, by layer.

    Every set of layers includes all targets of its layers, and the head if that is in the kernel, as the layer sets of
    the grid do. Numbers are those of the stage `solve`, whose code computes them.

    Attributes:
        layers: the layers that the grid's layer sets touch, ascending.

    Args:
        variant: a variant of the sweep.
        solves: the stages that fill its cells.
        folder: the results folder of the sweep.
        seed: seed of the grid.

    Raises:
        ResultsError: a block is not stored, or kernels are not decomposed; the message says what to do.
    """

    def __init__(self, variant: Variant, solves: Sequence[Solve], folder: ResultsFolder, seed: int) -> None:
        if variant.sweep.spec.kernel.decomposition == "iterative":
            raise ResultsError(
                "choosing layers decomposes the kernel of every candidate, and this sweep's kernel.decomposition is "
                "iterative: set it to full, with so few examples in grid.n_train that kernels fit into memory, and run"
            )
        groups = layers_of(variant, solves)
        self.layers = tuple(groups)
        self._head = (HEAD,) if HEAD in variant.sizes.groups else ()
        self._groups = groups
        grid = variant.sweep.spec.grid
        self._strengths = Strengths(grid.lambdas.numbers(), grid.lambdas.scale)
        self._stages = [solve.stage for solve in _reading_blocks(variant, solves) if solve.seed == seed]
        self._store = folder.artifacts()
        with self._explained():
            self._solver = Solver(_reading_all(self._stages), Work(WorkerState(variant.sweep, folder)))

    def of(self, layers: Iterable[int]) -> Kernel:
        """Return the kernel of a set of layers, added up as in the stage `solve` and so bitwise equal to a cell's."""
        groups = [group for layer in sorted(layers) for group in self._groups[layer]]
        return self._sum((*groups, *self._head))

    def block(self, layer: int) -> Kernel:
        """Return the block of one layer, all of its targets, without the head."""
        return self._sum(self._groups[layer])

    def start(self) -> Kernel:
        """Return the kernel of an empty set of layers: the head's if that is in the kernel, else zeros."""
        if self._head:
            return self._sum(self._head)
        M, M_eval = self._solver.problem.size, self._solver.problem.eval_size
        return Kernel(np.zeros((M, M), order="F"), np.zeros((M_eval, M)))

    def value(self, kernel: Kernel, criterion: Criterion) -> float:
        """Return the value of a criterion for a kernel, whose K(train, train) is overwritten."""
        decomposition = self._solver.decomposition_of(kernel.train)
        kept = self._solver.keep(decomposition, [kernel.evaluation])
        path = follow(kept, decomposition.trace, self._solver.problem, self._strengths, self._solver.missing)
        columns: dict[str, float | FloatArray] = {**self._solver.spectrum_scalars(decomposition), **path.columns}
        return criterion.best(np.atleast_1d(columns[criterion.column]))

    def _sum(self, groups: tuple[str, ...]) -> Kernel:
        with self._explained():
            return Kernel(*self._solver.kernel_blocks(groups))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn errors about missing or damaged artifacts into instructions to get them back."""
        try:
            yield
        except DamagedArtifactError as error:
            # A finished sweep no longer needs its blocks, so `run` alone would not check them.
            blocks = f"part of the kernel blocks of layers {compress(self.layers)}"
            what = {
                "gram": blocks,
                "head": "the fitted head",
                "head_refits": "the head without each example",
            }.get(error.kind, "labels")
            lost = (error.kind, error.stage_id)
            reading = next((stage for stage in self._stages if lost in stage.needs()), self._stages[0])
            raise ResultsError(
                f"the artifact {error.kind}/{error.stage_id} ({what}) is gone or damaged; to get it again, remove "
                f"{self._store.record_path(*reading.ref)} and run the sweep: it computes that and what is missing "
                "below it anew"
            ) from None


def layers_of(variant: Variant, solves: Sequence[Solve]) -> dict[int, tuple[str, ...]]:
    """Return the groups of each layer that the grid's layer sets touch, all of its targets, in the model's order.

    Raises:
        ResultsError: the kernel blocks of some of these groups are not stored.
    """
    touched = {layer for layer_set in variant.layer_sets for layer in layer_set.layers}
    by_layer: dict[int, tuple[str, ...]] = {}
    for group in variant.survey.groups:
        if group.layer is not None and group.layer in touched:
            by_layer[group.layer] = (*by_layer.get(group.layer, ()), group.name)
    if not by_layer:
        raise ResultsError("the sweep's layer sets touch no layer, so there is none to choose from")
    _check_stored(variant, solves, by_layer)
    return dict(sorted(by_layer.items()))


def _check_stored(variant: Variant, solves: Sequence[Solve], by_layer: Mapping[int, tuple[str, ...]]) -> None:
    sizes = variant.sizes
    reading = _reading_blocks(variant, solves)
    stored = sizes.dual_groups if reading else ()
    missing = {layer: [g for g in groups if g not in stored] for layer, groups in by_layer.items()}
    names = [name for groups in missing.values() for name in groups]
    layers = compress(sorted(by_layer))
    if not names:
        _refuse_blocks_of_several_layers(variant, reading, by_layer)
        return
    in_kernel = variant.sweep.spec.head.in_kernel
    (whole,) = expand_layer_sets(["all_layers"], variant.survey.groups, head_in_kernel=in_kernel)
    rows = sizes.kernel_rows(sizes.n_train)
    if sizes.method(whole, sizes.n_train) == "primal":
        how = (
            f"even all layers together have fewer parameters ({whole.n_parameters}) than the kernel has rows ({rows}), "
            "so that they are solved without blocks; lower grid.n_train, or raise adapter.rank"
        )
    else:
        how = (
            f"no layer set of the grid that holds them has as many parameters as the kernel has rows ({rows}); "
            "add `all_layers` to grid.layer_sets and run again"
        )
    raise ResultsError(
        f"to choose among layers {layers} the kernel blocks of all their groups are needed; not stored are "
        f"{', '.join(names)}: {how}"
    )


def _refuse_blocks_of_several_layers(
    variant: Variant, reading: Sequence[Solve], by_layer: Mapping[int, tuple[str, ...]]
) -> None:
    """Raise an error if a layer's groups share a block with those of another."""
    found, sets = variant.refinements, [each.groups for solve in reading for each in solve.layer_sets]
    read = sorted({number for groups in sets for number in refinements_of(groups, found)})
    blocks = [block_name(block) for number in read for block in found[number].blocks]
    for layer, groups in by_layer.items():
        if lacking(groups, blocks):
            raise ResultsError(
                f"to choose among layers {compress(sorted(by_layer))} each needs kernel blocks of its own, and layer "
                f"{layer} shares a block with others: add `each_layer` to grid.layer_sets, or set kernel.blocks: "
                "groups, and run again"
            )


def _reading_blocks(variant: Variant, solves: Sequence[Solve]) -> list[Solve]:
    """Return the solve stages of the largest training-set size that read kernel blocks."""
    largest = variant.sizes.n_train
    return [solve for solve in solves if solve.n_train == largest and solve.stage.parameters.method == "dual"]


def _reading_all(stages: Sequence[Stage]) -> Stage:
    """Return the first of some solve stages, with the kernel blocks that any of them reads."""
    read = {role: tuple(dict.fromkeys(ref for stage in stages for ref in stage.inputs[role])) for role in TILES}
    return replace(stages[0], inputs={**stages[0].inputs, **read})
