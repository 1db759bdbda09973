"""The stages that train cells: the model and its linearization for some lambdas of a layer set, and what compares."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from finetune.training.settings import TrainingSettings
from orchestrator.plan.parts import Comparison
from orchestrator.spec import Spec
from orchestrator.spec.finetune_section import FinetuneSection
from orchestrator.stages.compare import COMPARE, CompareParameters
from orchestrator.stages.finetune import CellsParameters, Run, RunParameters, finetune_stage
from orchestrator.stages.finetune.memory import training_memory
from orchestrator.stages.parameters import ProblemParameters
from orchestrator.store.stage import Inputs, Part, Stage
from orchestrator.sweep.choices import Choice
from orchestrator.sweep.layer_sets import HEAD, LayerSet
from orchestrator.sweep.variant import Variant

_OF_THE_PLAN = {
    "epochs", "warmup", "looks", "kernel_examples", "side_by_side", "side_by_side_across", "prefix_cache",
    "linearization", "train_head", "combinations",
}  # fmt: skip
"""Keys of the section that decide which stages are made, not how each of them trains."""


@dataclass(frozen=True)
class Training:
    """The training of some cells, before it is decided which runs share a model.

    Attributes:
        trained: the run of the model itself.
        linearized: the run of its linearization.
        inputs: those of both runs, and of the stage that compares them.
    """

    trained: Run
    linearized: Run
    inputs: Inputs


@dataclass(frozen=True)
class TrainedCells:
    """Some cells of a solve stage, and their training.

    Attributes:
        variant: position of their variant.
        solve: position of the solve stage among those of the plan.
        seed: seed of the grid.
        n_train: training examples.
        layer_set: position of the layer set among those of the solve stage.
        groups: its groups.
        first: position of its first lambda in the grid; the others follow.
        count: how many lambdas it has.
        training: how they are trained.
    """

    variant: int
    solve: int
    seed: int
    n_train: int
    layer_set: int
    groups: tuple[str, ...]
    first: int
    count: int
    training: Training


def plan_training(
    section: FinetuneSection, variants: Sequence[Variant], cells: Sequence[TrainedCells], budget: int
) -> tuple[list[tuple[Stage, int]], dict[int, list[Comparison]]]:
    """Return the stages that train cells and compare, with a variant of each, and the comparisons of each solve stage.

    Args:
        section: how cells are trained.
        variants: of the sweep.
        cells: all cells that are trained, together those of one layer set and seed.
        budget: bytes of a worker, which runs of several seeds or learning rates share.
    """
    shared = _shared_models(section, variants, cells, budget)
    stages: list[tuple[Stage, int]] = []
    comparisons: dict[int, list[Comparison]] = {}
    for each in cells:
        trained, run = shared[each.training.trained.part_id]
        linearized = finetune_stage([each.training.linearized])
        both = {"trained": ((trained.kind, trained.stage_id),), "linearized": ((linearized.kind, linearized.stage_id),)}
        compared = CompareParameters(each.training.trained.parameters.cells, run)
        comparison = Stage(COMPARE, compared, {**each.training.inputs, **both})
        stages += [(stage, each.variant) for stage in (trained, linearized, comparison)]
        own = Comparison(comparison, each.layer_set, each.first, each.count)
        comparisons.setdefault(each.solve, []).append(own)
    return stages, comparisons


def _shared_models(
    section: FinetuneSection, variants: Sequence[Variant], cells: Sequence[TrainedCells], budget: int
) -> dict[str, tuple[Stage, int]]:
    """Return the stage of each run of the model, by the run's identity, and the run's number in it."""
    alike: dict[tuple[Any, ...], dict[str, tuple[Run, int]]] = {}
    for each in cells:
        run, variant = each.training.trained, variants[each.variant]
        memory = training_memory(variant.sizes, variant.survey, run)
        alike.setdefault(_shared_key(section, variant.choice, each), {})[run.part_id] = (run, memory)
    found: dict[str, tuple[Stage, int]] = {}
    for runs in alike.values():
        for together in _divided(list(runs.values()), section.side_by_side, budget):
            stage = finetune_stage(together)
            found |= {run.part_id: (stage, number) for number, run in enumerate(together)}
    return found


def _shared_key(section: FinetuneSection, choice: Choice, cells: TrainedCells) -> tuple[Any, ...]:
    """Return what runs must have in common to share a model."""
    across = section.side_by_side_across or ()
    return (
        choice.task,
        choice.rank,
        None if "learning_rates" in across else choice.learning_rate,
        None if "seeds" in across else cells.seed,
        cells.n_train,
        cells.groups,
        cells.first,
    )


def _divided(runs: Sequence[tuple[Run, int]], most: int, budget: int) -> Iterator[list[Run]]:
    """Divide runs, each with its memory, into those that share a model: at most so many cells, within a budget."""
    part: list[Run] = []
    cells = taken = 0
    for run, memory in runs:
        own = len(run.parameters.cells.lambdas)
        if part and (cells + own > most or taken + memory > budget):
            yield part
            part, cells, taken = [], 0, 0
        part.append(run)
        cells, taken = cells + own, taken + memory
    yield part


class FinetunePlanner:
    """Plans the training of the cells of one seed and training-set size.

    Args:
        spec: the spec.
        section: its section `finetune`.
        problem: everything that fixes the regression problem but layer set and lambda.
        seed: of the grid; draws the order of examples.
        fits: tells whether the memory of a worker holds what a run needs.
    """

    def __init__(
        self,
        spec: Spec,
        section: FinetuneSection,
        problem: ProblemParameters,
        seed: int,
        fits: Callable[[Run], bool],
    ) -> None:
        self._spec = spec
        self._problem = problem
        self._seed = seed
        self._settings = _training_settings(section, problem.n_train)
        self._kernel_examples = min(section.kernel_examples, problem.n_train)
        self._prefix_cache = section.prefix_cache
        self._linearization = section.linearization
        self._fits = fits

    def training(self, layer_set: LayerSet, lambdas: Sequence[float], inputs: Inputs) -> Training:
        """Return the training of some cells of a layer set.

        Args:
            layer_set: the layer set to train.
            lambdas: of the cells that are trained side by side, as the spec gives them.
            inputs: dataset, head if one is fitted, and the captures of both splits.
        """
        cells = CellsParameters(
            problem=self._problem,
            groups=layer_set.groups,
            lambdas=tuple(lambdas),
            lambda_scale=self._spec.grid.lambdas.scale,
            training=self._settings,
            seed=self._seed,
            train_head=bool(self._spec.head_trained and not self._spec.head.in_kernel),
        )
        frozen_layers = self._frozen_layers(layer_set) if self._prefix_cache else 0
        nonlinear = RunParameters(cells, "nonlinear", None, self._kernel_examples, frozen_layers)
        return Training(Part(nonlinear, inputs), self._linearized(cells, frozen_layers, inputs), inputs)

    def _linearized(self, cells: CellsParameters, frozen_layers: int | None, inputs: Inputs) -> Run:
        """Return the run that trains the linearization: by rows where they fit, unless the spec sets the method.

        A model that is divided among processes has no products: the plan then refuses rows that do not fit.
        """
        cells = replace(cells, train_head=False)
        by_rows = Part(RunParameters(cells, "linearized", "rows", 0, 0), inputs)
        rows_only = self._linearization == "rows" or self._spec.is_divided
        if rows_only or (self._linearization is None and self._fits(by_rows)):
            return by_rows
        return Part(RunParameters(cells, "linearized", "products", 0, frozen_layers), inputs)

    def _frozen_layers(self, layer_set: LayerSet) -> int | None:
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
        warmup_steps=round(section.warmup * steps),
        record_every=max(1, -(-steps // section.looks)),
    )
