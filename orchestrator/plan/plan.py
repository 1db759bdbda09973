"""The plan: from a sweep to the stages that all its cells need, each stage once."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from orchestrator.errors import SpecError
from orchestrator.identity import identity
from orchestrator.loading import no_garbage
from orchestrator.plan.limits import refuse_too_many_layer_sets, refuse_too_many_stages
from orchestrator.stages.base.cells import Filled, Solve
from orchestrator.stages.base.scope import F, Planning, SeedScope
from orchestrator.stages.registry import KINDS
from orchestrator.store.artifacts import ArtifactStore
from orchestrator.store.stage import Stage, StageCost
from orchestrator.sweep.balance import check_balance_against
from orchestrator.sweep.choices import Choice, variants
from orchestrator.sweep.folder import Sweep
from orchestrator.sweep.layer_sets import expand_layer_sets
from orchestrator.sweep.sizes import Sizes
from orchestrator.sweep.survey_facts import Survey
from orchestrator.sweep.trained_examples import check_trained_examples
from orchestrator.sweep.variant import Variant


@dataclass(frozen=True, repr=False)
class Plan:
    """Every stage of a sweep, in an order in which each comes after its inputs.

    Attributes:
        sweep: the sweep.
        variants: its variants, which have the same layer sets; parameters differ with the rank.
        stages: all stages.
        variant_of: position of the first variant that needs a stage, by its identity.
        filled: stages that fill rows of tables, by their class.
    """

    sweep: Sweep
    variants: tuple[Variant, ...]
    stages: tuple[Stage, ...]
    variant_of: Mapping[str, int]
    filled: Mapping[type[Filled], tuple[Any, ...]]

    def __repr__(self) -> str:
        return f"<ntksweep plan of {self.sweep.spec.name}: {self.n_cells} cells, {len(self.stages)} stages>"

    def filled_by(self, kind: type[F]) -> tuple[F, ...]:
        """Return the stages that fill rows of one kind, in the order of their table."""
        return self.filled.get(kind, ())

    @cached_property
    def solves(self) -> tuple[Solve, ...]:
        """The stages that fill cells, in the order of the table."""
        return self.filled_by(Solve)

    def of(self, stage: Stage) -> Variant:
        """Return a variant that needs a stage; the cost of a stage is the same for all of them."""
        return self.variants[self.variant_of[stage.stage_id]]

    def cost_of(self, stage: Stage) -> StageCost:
        """Return the cost of a stage."""
        return stage.of.cost(stage, self.of(stage))

    def solves_of(self, position: int) -> tuple[Solve, ...]:
        """Return the stages that fill the cells of a variant."""
        return tuple(solve for solve in self.solves if solve.variant == position)

    @property
    def layer_set_names(self) -> tuple[str, ...]:
        """Names of the layer sets of the grid."""
        return tuple(layer_set.name for layer_set in self.variants[0].layer_sets)

    @cached_property
    def lambdas(self) -> tuple[float, ...]:
        """The regularization strengths, as the spec gives them."""
        return self.sweep.spec.grid.lambdas.numbers()

    @property
    def n_cells(self) -> int:
        """Number of cells of the grid."""
        return sum(len(solve.layer_sets) for solve in self.solves) * len(self.lambdas)

    @cached_property
    def plan_id(self) -> str:
        """Identity of the plan: a hash of the stages that fill the tables, their order, and the lambdas."""
        spec = self.sweep.spec
        return identity([
            [list(self.lambdas), spec.grid.lambdas.scale, spec.results.predictions],
            *(
                [*(stage.stage_id for stage in each.filling), each.seed, each.n_train, *self._named(each.variant)]
                for each in self._all_filled
            ),
        ])  # fmt: skip

    def _named(self, variant: int) -> list[str]:
        name = str(self.variants[variant].choice)
        return [name] if name else []

    @property
    def filling(self) -> Iterator[Stage]:
        """All stages that fill a table."""
        return (stage for each in self._all_filled for stage in each.filling)

    @property
    def _all_filled(self) -> Iterator[Filled]:
        return (each for of_kind in self.filled.values() for each in of_kind)


def missing_stages(plan: Plan, store: ArtifactStore, also: Collection[str] = ()) -> list[Stage]:
    """Return the stages of a plan that are not finished but still needed, in the plan's order.

    A stage is not needed if all stages that read it are finished: a tile that was lost after its kernels were
    decomposed stays lost until a new layer set needs it. The stages in `also` are always needed.
    """
    finished = {kind: store.finished(kind) for kind in {stage.kind for stage in plan.stages}}
    needed: set[str] = {stage.stage_id for stage in plan.filling} | set(also)
    missing = []
    for stage in reversed(plan.stages):
        if stage.stage_id in needed and stage.stage_id not in finished[stage.kind]:
            missing.append(stage)
            needed |= {stage_id for _, stage_id in stage.needs()}
    return missing[::-1]


def make_plan(sweep: Sweep, surveys: Sequence[Survey], store: ArtifactStore | None = None) -> Plan:
    """Plan a sweep.

    Args:
        sweep: the sweep.
        surveys: facts about the model and data of each of its variants.
        store: the artifacts of its results folder, whose solve stages may serve its lambdas although they were made
            for others; None plans as if there were none.

    Raises:
        SpecError: the grid requires something that the model or the data do not have.
    """
    planning = Planning(sweep, store)
    with no_garbage():  # of many objects, all of which stay
        for position, ((choice, single), survey) in enumerate(zip(variants(sweep), surveys, strict=True)):
            variant = _variant(choice, single, survey)
            refuse_too_many_stages(variant, len(surveys))
            planning.variants.append(variant)
            for seed in dict.fromkeys(sweep.spec.grid.seeds):
                scope = SeedScope(planning, variant, position, seed)
                planning.scopes.append(scope)
                for kind in KINDS.values():
                    if kind.plan:
                        kind.plan(scope)
        for kind in KINDS.values():
            if kind.plan_sweep:
                kind.plan_sweep(planning)
    filled = {kind: tuple(each) for kind, each in planning.filled.items()}
    return Plan(sweep, tuple(planning.variants), tuple(planning.stages.values()), planning.variant_of, filled)


def _variant(choice: Choice, sweep: Sweep, survey: Survey) -> Variant:
    spec = sweep.spec
    try:
        _check_against(sweep, survey)
        refuse_too_many_layer_sets(spec.grid.layer_sets, len({group.layer for group in survey.groups} - {None}))
        sets = tuple(expand_layer_sets(spec.grid.layer_sets, survey.groups, head_in_kernel=spec.head.in_kernel))
    except SpecError as error:
        said = f"{choice}: {error.said}" if choice.task else error.said
        raise SpecError(said, key=error.key, task=choice.task) from None
    variant = Variant(choice, sweep, survey, Sizes.of(sweep, survey, sets), sets)
    reasons = (kind.reads_rows(variant) for kind in KINDS.values() if kind.reads_rows)
    return replace(variant, reads_rows=next(filter(None, reasons), ""))


def _check_against(sweep: Sweep, survey: Survey) -> None:
    spec = sweep.spec
    n_train, n_eval = max(spec.grid.n_train), spec.task.n_eval
    needed = n_train + n_eval if survey.shared_pool else n_train
    if needed > survey.pool_train or n_eval > survey.pool_eval:
        available = (
            f"{survey.pool_train} that can be used"
            if survey.shared_pool
            else f"{survey.pool_train} and {survey.pool_eval} that can be used"
        )
        raise SpecError(
            f"the data has too few examples: grid.n_train {n_train} and task.n_eval {n_eval} need more than "
            f"the {available}; lower one of them",
            key="grid.n_train" if n_train > n_eval else "task.n_eval",
        )
    check_trained_examples(spec, survey)
    check_balance_against(spec, survey)
    if spec.kernel.outputs == "margin" and survey.n_outputs != 2:
        said = f"margin needs two classes; the data has {survey.n_outputs}: use full or trace"
        raise SpecError(said, key="kernel.outputs")
    if spec.head.words and len(spec.head.words) != survey.n_outputs:
        said = f"give {survey.n_outputs} words, one a class; there are {len(spec.head.words)}"
        raise SpecError(said, key="head.words")
