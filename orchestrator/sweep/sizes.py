"""Sizes of the parts of a sweep: rows, shards and tiles; and the choice between primal and dual for a layer set."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from orchestrator.sweep.folder import Sweep
from orchestrator.sweep.layer_sets import LayerSet
from orchestrator.sweep.survey_facts import Survey
from orchestrator.sweep.trained_examples import trained_examples

LARGEST_SHARD = 256
SHARD_SHARE_OF_BUDGET = 4
BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}


COLUMNS_AT_ONCE = 2048
"""Columns of a Jacobian that are converted and multiplied at once; fixed, because they determine the order of sums."""


@dataclass(frozen=True)
class Sizes:
    """Sizes that the spec, the survey and the layer sets fix; none depends on workers.

    Attributes:
        groups: groups that some layer set needs, in the model's order; only these are captured.
        group_parameters: parameters of each of those groups.
        dual_groups: groups that some layer set needs as kernel blocks.
        rows_per_example: rows of the Jacobian that an example gives.
        kernel_rows_per_example: rows of the kernel that an example gives; 1 for the trace-averaged kernel.
        features_per_parameter: feature columns that a parameter gives; C for the trace-averaged kernel.
        shard_examples: examples of a shard.
        drawn_sets: training sets that are drawn, ascending, the largest one last: a shard ends at the end of each.
        n_eval: evaluation examples.
        n_trained: examples that cells are trained on; None for those of the kernel.
        largest_dual: largest training-set size that needs kernel blocks; 0 where none does.
        primal_possible: whether the kernel has a primal form.
        row_bytes: bytes of one number of a Jacobian row.
    """

    groups: tuple[str, ...]
    group_parameters: tuple[int, ...]
    dual_groups: tuple[str, ...]
    rows_per_example: int
    kernel_rows_per_example: int
    features_per_parameter: int
    shard_examples: int
    drawn_sets: tuple[int, ...]
    n_eval: int
    n_trained: int | None
    largest_dual: int
    primal_possible: bool
    row_bytes: int

    @classmethod
    def of(cls, sweep: Sweep, survey: Survey, layer_sets: Sequence[LayerSet]) -> "Sizes":
        """Return the sizes of a sweep."""
        spec, outputs = sweep.spec, survey.n_outputs
        mode = spec.kernel.outputs
        rows = 1 if mode == "margin" else outputs
        kernel_rows = outputs if mode == "full" else 1
        features = outputs if mode == "trace" else 1
        primal_possible = spec.kernel.kind != "asymmetric_sign"

        needed = frozenset().union(*(layer_set.groups for layer_set in layer_sets))
        facts = [group for group in survey.groups if group.name in needed]
        total = sum(group.n_parameters for group in facts)
        row_bytes = BYTES[spec.row_dtype]
        shard = spec.compute.shard_examples or _automatic_shard(spec.compute.memory_budget, rows, total * row_bytes)

        def is_dual(layer_set: LayerSet, n_train: int) -> bool:
            return not (primal_possible and layer_set.n_parameters * features < n_train * kernel_rows)

        dual = [(s, n) for n in spec.grid.n_train for s in layer_sets if is_dual(s, n)]
        dual_names = frozenset().union(*(layer_set.groups for layer_set, _ in dual))
        return cls(
            groups=tuple(group.name for group in facts),
            group_parameters=tuple(group.n_parameters for group in facts),
            dual_groups=tuple(group.name for group in facts if group.name in dual_names),
            rows_per_example=rows,
            kernel_rows_per_example=kernel_rows,
            features_per_parameter=features,
            shard_examples=shard,
            drawn_sets=sweep.drawn_sets,
            n_eval=spec.task.n_eval,
            n_trained=trained_examples(spec, survey),
            largest_dual=max((n for _, n in dual), default=0),
            primal_possible=primal_possible,
            row_bytes=row_bytes,
        )

    @property
    def n_train(self) -> int:
        """Largest training-set size."""
        return self.drawn_sets[-1]

    @property
    def example_sets(self) -> tuple[int, ...]:
        """Sets of training examples that are drawn, ascending: those of kernels, and one that cells are trained on."""
        further = () if self.n_trained is None or self.n_trained <= self.n_train else (self.n_trained,)
        return (*self.drawn_sets, *further)

    def trained_with(self, n_train: int) -> int:
        """Return the number of examples that the cells of a kernel of `n_train` examples are trained on."""
        return n_train if self.n_trained is None else self.n_trained

    @cached_property
    def train_shards(self) -> list[tuple[int, int]]:
        """Ranges of training examples, one a shard: those of a drawn set stay when a larger one is drawn."""
        return self._shards(self.n_train, self.drawn_sets)

    @property
    def eval_shards(self) -> list[tuple[int, int]]:
        """Ranges of evaluation examples, one a shard."""
        return self._shards(self.n_eval)

    @property
    def dual_train_shards(self) -> int:
        """Number of train shards that need kernel blocks."""
        return self.shards_of(self.largest_dual)

    @property
    def batch_size(self) -> int:
        """Most examples of a batch, which keeps the memory of its rows at a fraction of that of a shard's rows."""
        return max(1, self.shard_examples // 4)

    @property
    def n_parameters(self) -> int:
        """Parameters of all captured groups."""
        return sum(self.group_parameters)

    def parameters_of(self, groups: Iterable[str]) -> int:
        """Return the parameters of some of the captured groups."""
        chosen = frozenset(groups)
        return sum(n for group, n in zip(self.groups, self.group_parameters, strict=True) if group in chosen)

    @property
    def shard_bytes(self) -> int:
        """Bytes of the rows of a shard, of all captured groups."""
        return self.row_bytes_of(self.shard_examples * self.rows_per_example)

    def row_bytes_of(self, rows: int) -> int:
        """Return the bytes of a number of rows, of all captured groups."""
        return rows * self.n_parameters * self.row_bytes

    @property
    def batch_bytes(self) -> int:
        """Bytes of the rows of a batch, and of the copy that is made of them."""
        return 2 * self.row_bytes_of(self.batch_size * self.rows_per_example)

    def shards_of(self, n_train: int) -> int:
        """Return how many train shards hold the first `n_train` examples."""
        step = self.shard_examples
        return -(-n_train // step) + sum(end < n_train and end % step > 0 for end in self.drawn_sets)

    def kernel_rows(self, n_examples: int) -> int:
        """Return the rows of the kernel of a number of examples."""
        return n_examples * self.kernel_rows_per_example

    def method(self, layer_set: LayerSet, n_train: int) -> str:
        """Return `primal` where the layer set has fewer features than the kernel has rows, else `dual`."""
        features = layer_set.n_parameters * self.features_per_parameter
        return "primal" if self.primal_possible and features < self.kernel_rows(n_train) else "dual"

    def _shards(self, n_examples: int, ends: Sequence[int] = ()) -> list[tuple[int, int]]:
        """Return the ranges of examples that begin at each multiple of a shard, and at each of some ends."""
        starts = sorted({*range(0, n_examples, self.shard_examples), *(end for end in ends if end < n_examples)})
        return list(zip(starts, [*starts[1:], n_examples], strict=True))


def _automatic_shard(budget: int, rows: int, row_bytes: int) -> int:
    """Return the largest power of two, up to LARGEST_SHARD, of examples that a share of the budget holds.

    With many outputs the tiles are large too: half of the budget must hold the product of two shards.
    """
    fitting = max(1, budget // (SHARD_SHARE_OF_BUDGET * max(1, rows * row_bytes)))
    shard = min(LARGEST_SHARD, 1 << (fitting.bit_length() - 1))
    while shard > 1 and 2 * workspace_bytes(shard * rows, shard * rows) > budget:
        shard //= 2
    return shard


def workspace_bytes(left_rows: int, right_rows: int, columns: int = COLUMNS_AT_ONCE) -> int:
    """Return the memory that one product of tiles may take: result, partial result, and both sides in float64."""
    return 16 * left_rows * right_rows + 9 * (left_rows + right_rows) * columns
