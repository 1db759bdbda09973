"""The plan: from a sweep to the stages that all its cells need, each stage once."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from orchestrator.errors import SpecError
from orchestrator.identity import identity
from orchestrator.plan.additions import Additions
from orchestrator.plan.combinations import Combination, plan_combinations
from orchestrator.plan.kept_solves import KeptSolves
from orchestrator.plan.limits import refuse_too_many_layer_sets, refuse_too_many_stages
from orchestrator.plan.parts import Solve
from orchestrator.plan.seed import SeedPlanner
from orchestrator.plan.training import TrainedCells, plan_training
from orchestrator.store.artifacts import ArtifactStore
from orchestrator.store.stage import Stage, StageCost
from orchestrator.sweep.balance import check_balance_against
from orchestrator.sweep.choices import Choice, variants
from orchestrator.sweep.folder import Sweep
from orchestrator.sweep.layer_sets import LayerSet, expand_layer_sets
from orchestrator.sweep.sizes import Sizes
from orchestrator.sweep.survey import Survey
from orchestrator.sweep.variant import Variant


@dataclass(frozen=True)
class Plan:
    """Every stage of a sweep, in an order in which each comes after its inputs.

    Attributes:
        sweep: the sweep.
        variants: its variants, which have the same layer sets; parameters differ with the rank.
        stages: all stages.
        solves: the stages that fill cells, in the order of the table.
        variant_of: position of the first variant that needs a stage, by its identity.
        additions: the stages that fill the table `additions`; none unless the spec asks for it.
        combinations: the stages that fill the table `combinations`; none unless the spec asks for it.
    """

    sweep: Sweep
    variants: tuple[Variant, ...]
    stages: tuple[Stage, ...]
    solves: tuple[Solve, ...]
    variant_of: Mapping[str, int]
    additions: tuple[Additions, ...] = ()
    combinations: tuple[Combination, ...] = ()

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
    def layer_sets_of(self) -> dict[str, tuple[LayerSet, ...]]:
        """The layer sets of each solve stage, by its identity."""
        return {solve.stage.stage_id: solve.layer_sets for solve in self.solves}

    @cached_property
    def plan_id(self) -> str:
        """Identity of the plan: a hash of the stages that fill the tables, their order, and the lambdas."""
        spec = self.sweep.spec
        return identity([
            [list(self.lambdas), spec.grid.lambdas.scale, spec.results.predictions],
            *(
                [*(stage.stage_id for stage in solve.filling), solve.seed, solve.n_train, *self._named(solve.variant)]
                for solve in self.solves
            ),
            *([each.stage.stage_id, each.seed, each.n_train, *self._named(each.variant)] for each in self.additions),
            *([each.stage.stage_id] for each in self.combinations),
        ])  # fmt: skip

    def _named(self, variant: int) -> list[str]:
        name = str(self.variants[variant].choice)
        return [name] if name else []

    @property
    def filling(self) -> Iterator[Stage]:
        """All stages that fill a table."""
        yield from (stage for solve in self.solves for stage in solve.filling)
        yield from (each.stage for each in self.additions)
        yield from (each.stage for each in self.combinations)


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
    found: list[Variant] = []
    stages: dict[str, Stage] = {}
    variant_of: dict[str, int] = {}
    solves: list[Solve] = []
    additions: list[Additions] = []
    trained: list[TrainedCells] = []
    kept = KeptSolves(store) if store else None
    for position, ((choice, single), survey) in enumerate(zip(variants(sweep), surveys, strict=True)):
        variant = _variant(choice, single, survey)
        refuse_too_many_stages(variant, len(surveys))
        own = _stages_of(variant, kept, position, len(solves))
        found.append(variant)
        # Variants that differ in the learning rate alone add the same.
        additions.extend(replace(each, variant=position) for each in own.additions if each.stage.stage_id not in stages)
        for stage in own.stages:
            stages.setdefault(stage.stage_id, stage)
            variant_of.setdefault(stage.stage_id, position)
        solves.extend(replace(each, variant=position, learning_rate=choice.learning_rate) for each in own.solves)
        trained.extend(own.trained)
    if sweep.spec.finetune is not None:
        budget = sweep.spec.compute.memory_budget
        training, comparisons = plan_training(sweep.spec.finetune, found, trained, budget)
        for stage, position in training:
            stages.setdefault(stage.stage_id, stage)
            variant_of.setdefault(stage.stage_id, position)
        solves = [replace(each, comparisons=tuple(comparisons[number])) for number, each in enumerate(solves)]
    combinations = _combinations(sweep, found, solves, stages)
    for each in combinations:
        stages.setdefault(each.stage.stage_id, each.stage)
        variant_of.setdefault(each.stage.stage_id, each.variants[0])
    return Plan(sweep, tuple(found), tuple(stages.values()), tuple(solves), variant_of, tuple(additions), combinations)


def _combinations(
    sweep: Sweep, found: Sequence[Variant], solves: Sequence[Solve], stages: Mapping[str, Stage]
) -> tuple[Combination, ...]:
    section = sweep.spec.finetune.combinations if sweep.spec.finetune else None
    return tuple(plan_combinations(section, found, solves, stages)) if section else ()


def _variant(choice: Choice, sweep: Sweep, survey: Survey) -> Variant:
    spec = sweep.spec
    try:
        _check_against(sweep, survey)
        refuse_too_many_layer_sets(spec.grid.layer_sets, len({group.layer for group in survey.groups} - {None}))
        sets = tuple(expand_layer_sets(spec.grid.layer_sets, survey.groups, head_in_kernel=spec.head.in_kernel))
    except SpecError as error:
        raise SpecError(f"{choice}: {error}" if choice.task else str(error)) from None
    return Variant(choice, sweep, survey, Sizes.of(sweep, survey, sets), sets)


@dataclass(frozen=True)
class _Own:
    """The plan of a variant: stages, each after its inputs, those that fill tables, and cells that are trained."""

    stages: list[Stage]
    solves: list[Solve]
    additions: list[Additions]
    trained: list[TrainedCells]


def _stages_of(variant: Variant, kept: KeptSolves | None, position: int, n_solves: int) -> _Own:
    """Return the plan of a variant.

    Args:
        variant: the variant.
        kept: finished solve stages that serve its lambdas.
        position: position of the variant.
        n_solves: solve stages of the variants before it.
    """
    own = _Own([], [], [], [])
    for seed in dict.fromkeys(variant.sweep.spec.grid.seeds):
        planner = SeedPlanner(variant, seed)
        own.stages.extend(planner.shared_stages())
        for solve in planner.solves():
            own.trained.extend(planner.trained(solve, position, n_solves + len(own.solves)))
            own.solves.append(replace(solve, stage=kept.instead_of(solve.stage)) if kept else solve)
        if variant.sweep.spec.kernel.additions:
            adding = planner.adding()
            own.stages.extend(adding.further_tiles.values())
            own.additions.extend(adding.additions(seed))
    own.stages.extend(solve.stage for solve in own.solves)
    own.stages.extend(each.stage for each in own.additions)
    return own


def _check_against(sweep: Sweep, survey: Survey) -> None:
    spec = sweep.spec
    n_train, n_eval = max(spec.grid.n_train), spec.task.n_eval
    needed = n_train + n_eval if survey.shared_pool else n_train
    if needed > survey.pool_train or n_eval > survey.pool_eval:
        available = (
            f"{survey.pool_train} usable"
            if survey.shared_pool
            else f"{survey.pool_train} and {survey.pool_eval} usable"
        )
        raise SpecError(
            f"the data has too few examples: grid.n_train {n_train} and task.n_eval {n_eval} are asked for, "
            f"{available} are there; ask for fewer"
        )
    check_balance_against(spec, survey)
    if spec.kernel.outputs == "margin" and survey.n_outputs != 2:
        raise SpecError(f"kernel.outputs: margin needs two classes; the data has {survey.n_outputs}: use full or trace")
    if spec.head.words and len(spec.head.words) != survey.n_outputs:
        raise SpecError(f"head.words: give {survey.n_outputs} words, one a class; there are {len(spec.head.words)}")
