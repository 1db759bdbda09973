"""The training of cells: for each, a run of the model and one of its linearization."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from finetune.training.settings import TrainingSettings
from orchestrator.spec.finetune_section import FinetuneSection
from orchestrator.stages.base.cells import Solve
from orchestrator.stages.base.scope import SeedScope, refs
from orchestrator.stages.batching import training_trial
from orchestrator.stages.capture import captures
from orchestrator.stages.dataset import DATASET
from orchestrator.stages.finetune import FINETUNE, CellsParameters, Run, RunParameters
from orchestrator.stages.finetune.costs import training_memory
from orchestrator.stages.head import model_inputs
from orchestrator.store.stage import Inputs, Part
from orchestrator.sweep.layer_sets import HEAD, LayerSet
from orchestrator.sweep.refinements import Groups

_OF_THE_PLAN = {
    "n_train", "epochs", "warmup_ratio", "num_evaluations", "kernel_examples", "stacked_cells", "stacked_across",
    "prefix_cache", "linearization", "train_head", "combinations", "smoothness",
}  # fmt: skip
"""Keys of the section that decide which stages are made, not how each of them trains."""


@dataclass(frozen=True)
class TrainedLayerSet:
    """A layer set of a solve stage, whose cells are trained.

    Attributes:
        scope: seed and variant.
        solve: the solve stage.
        position: position of the layer set among those of the solve stage.
        training: how cells of the solve stage are trained.
    """

    scope: SeedScope
    solve: Solve
    position: int
    training: "_Training"

    @property
    def rank(self) -> int | None:
        """Rank of LoRA, where the grid has several."""
        return self.scope.variant.choice.rank

    @property
    def learning_rate(self) -> float:
        """The learning rate."""
        return self.training.learning_rate

    @property
    def seed(self) -> int:
        """Seed of the grid."""
        return self.scope.seed

    def cells(self, lambdas: Sequence[float]) -> "TrainedCells":
        """Return the training of the cells of some lambdas."""
        return TrainedCells(self, *self.training.runs(self.solve.layer_sets[self.position], lambdas))


@dataclass(frozen=True)
class TrainedCells:
    """Some cells of a layer set, and their training, before it is decided which runs share a model.

    Attributes:
        of: the layer set.
        trained: the run of the model itself.
        linearized: the run of its linearization.
    """

    of: TrainedLayerSet
    trained: Run
    linearized: Run

    @property
    def cells(self) -> CellsParameters:
        """The cells, as they are trained in the model."""
        return self.trained.parameters.cells

    @property
    def lambdas(self) -> tuple[float, ...]:
        """Lambdas of the cells, as the spec gives them."""
        return self.cells.lambdas


def trained_layer_sets(scope: SeedScope, solve: Solve) -> Iterator[TrainedLayerSet]:
    """Yield the layer sets of a solve stage, if they are trained."""
    section = scope.variant.sweep.spec.finetune  # with the variant's learning rate
    if section is None:
        return
    training = _Training(scope, section, solve)
    for position in range(len(solve.layer_sets)):
        yield TrainedLayerSet(scope, solve, position, training)


class _Training:
    """The training of the cells of a solve stage."""

    def __init__(self, scope: SeedScope, section: FinetuneSection, solve: Solve) -> None:
        self._scope = scope
        self._spec = scope.variant.sweep.spec
        self._section = section
        self._kernel_n_train = solve.n_train
        self._n_train = scope.variant.sizes.trained_with(solve.n_train)
        self._problem = solve.stage.parameters.problem
        if self._apart:
            ((_, dataset),) = scope.inputs(self._n_train, DATASET)[DATASET.name]
            self._problem = scope.problem(self._n_train, dataset)
        self._settings = _training_settings(section, self._n_train)

    @property
    def learning_rate(self) -> float:
        """The learning rate."""
        return self._section.learning_rate

    @property
    def _apart(self) -> bool:
        """Whether cells are trained on more examples than the kernel has."""
        return self._n_train != self._kernel_n_train

    def _inputs(self, groups: Sequence[str]) -> Inputs:
        """Return the inputs of the training of some groups, the same object for all that read the same.

        Dataset, head if one is fitted, the trial of training batches, and the kernel's captures of both splits.
        """
        rows = self._scope.variant.rows_with(groups)
        key = FINETUNE.name, self._n_train, self._kernel_n_train, rows
        return self._scope.kept(key, lambda: self._inputs_of(rows))

    def _inputs_of(self, rows: Groups) -> Inputs:
        shards = self._scope.variant.sizes.shards_of(self._kernel_n_train)
        return {
            **model_inputs(self._scope, self._n_train),
            "batching": (training_trial(self._scope, self._n_train, rows).ref,),
            "train": refs(captures(self._scope, "train", rows)[:shards]),
            "eval": refs(captures(self._scope, "eval", rows)),
        }

    def runs(self, layer_set: LayerSet, lambdas: Sequence[float]) -> tuple[Run, Run]:
        """Return the runs of the model and of its linearization for stacked cells."""
        cells = CellsParameters(
            problem=self._problem,
            groups=layer_set.groups,
            lambdas=tuple(lambdas),
            lambda_scale=self._spec.grid.lambdas.scale,
            training=self._settings,
            seed=self._scope.seed,
            train_head=bool(self._spec.head_trained and not self._spec.head.in_kernel),
            kernel_n_train=self._kernel_n_train if self._apart else None,
        )
        frozen_layers = _frozen_layers(layer_set) if self._section.prefix_cache else 0
        followed = min(self._section.kernel_examples, self._kernel_n_train)
        nonlinear = RunParameters(cells, "nonlinear", None, followed, frozen_layers)
        return Part(nonlinear, self._inputs(cells.groups)), self._linearized(cells, frozen_layers)

    def _linearized(self, cells: CellsParameters, frozen_layers: int | None) -> Run:
        """Return the run that trains the linearization: by rows where they fit, unless the spec sets the method.

        Examples that the kernel lacks have no rows. A sharded model has no products: the plan then refuses rows that
        do not fit.
        """
        cells = replace(cells, train_head=False)
        by_rows = Part(RunParameters(cells, "linearized", "rows", 0, 0), self._inputs(cells.groups))
        method = self._section.linearization
        if not self._apart and (method == "rows" or self._spec.is_sharded or (method is None and self._fits(by_rows))):
            return by_rows
        return Part(RunParameters(cells, "linearized", "products", 0, frozen_layers), self._inputs(cells.groups))

    def _fits(self, run: Run) -> bool:
        """Tell whether the memory of a worker holds what a run needs."""
        variant = self._scope.variant
        return training_memory(variant.sizes, variant.survey, run) <= self._spec.compute.memory_budget


def _frozen_layers(layer_set: LayerSet) -> int | None:
    """Return the number of layers below the trained ones that are computed once; None for all of them.

    A group outside the layers may precede them, as embeddings do: then no layer is known to be frozen.
    """
    outside = [group for group in layer_set.groups if group != HEAD and not group.partition(".")[0].isdigit()]
    if outside:
        return 0
    return layer_set.layers[0] if layer_set.layers else None


def _training_settings(section: FinetuneSection, n_train: int) -> TrainingSettings:
    """Return the settings of `finetune.training`."""
    steps = section.epochs * section.steps_per_epoch(n_train)
    return TrainingSettings(
        **section.model_dump(exclude=_OF_THE_PLAN),
        steps=steps,
        warmup_steps=round(section.warmup_ratio * steps),
        eval_steps=max(1, -(-steps // section.num_evaluations)),
    )
