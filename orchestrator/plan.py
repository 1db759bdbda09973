"""The plan: from a sweep to the stages that all its cells need, each stage once."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from orchestrator.additions_plan import Additions, AdditionsPlanner
from orchestrator.balance import check_balance_against
from orchestrator.combinations_plan import Combination, plan_combinations
from orchestrator.errors import SpecError
from orchestrator.finetune_plan import FinetunePlanner
from orchestrator.folder import Sweep
from orchestrator.identity import canonical_json, digest, identity
from orchestrator.layer_sets import LayerSet, expand_layer_sets
from orchestrator.sizes import Sizes
from orchestrator.stage import Stage
from orchestrator.survey import Survey
from orchestrator.training_memory import training_memory
from orchestrator.variants import Choice, variants

MANY_LAYER_SETS = 1024
"""Beyond this many layer sets one solve stage serves several, so that files do not outnumber what a disk likes."""

Ref = tuple[str, str]


@dataclass(frozen=True)
class Comparison:
    """A stage that fills the columns about training, of some lambdas of a layer set.

    Attributes:
        stage: the stage `compare`.
        layer_set: position of the layer set among those of its solve stage.
        first: position of its first lambda in the grid; the others follow.
        count: how many lambdas it has.
    """

    stage: Stage
    layer_set: int
    first: int
    count: int


@dataclass(frozen=True)
class Variant:
    """One task, rank and learning rate of a sweep's grid.

    Attributes:
        choice: which.
        sweep: the sweep that has no other.
        survey: facts about its model and data.
        sizes: how many rows, shards and tiles there are.
        layer_sets: the layer sets of the grid.
    """

    choice: Choice
    sweep: Sweep
    survey: Survey
    sizes: Sizes
    layer_sets: tuple[LayerSet, ...]


@dataclass(frozen=True)
class Solve:
    """A solve stage and the cells that it fills: its layer sets times all lambdas.

    Attributes:
        stage: the stage.
        seed: seed of the grid.
        n_train: training examples.
        layer_sets: its layer sets, in the order of the artifact's arrays.
        problem_id: identity of everything but layer set and lambda.
        comparisons: the stages that fill the columns about training of the same cells; none if nothing is trained.
        variant: position of the variant that the cells belong to. Variants that differ in the learning rate alone have
            solve stages in common.
        learning_rate: that of the variant, where the grid has several.
    """

    stage: Stage
    seed: int
    n_train: int
    layer_sets: tuple[LayerSet, ...]
    problem_id: str
    comparisons: tuple[Comparison, ...] = ()
    variant: int = 0
    learning_rate: float | None = None

    @property
    def filling(self) -> tuple[Stage, ...]:
        """All stages that fill its cells."""
        return (self.stage, *(comparison.stage for comparison in self.comparisons))


@dataclass(frozen=True)
class Plan:
    """Every stage of a sweep, in an order in which each comes after what it needs.

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
        """Return a variant that needs a stage; what a stage costs is the same for all of them."""
        return self.variants[self.variant_of[stage.stage_id]]

    def only(self, position: int) -> "Plan":
        """Return the plan of one variant by itself, with all stages."""
        solves = tuple(replace(solve, variant=0) for solve in self.solves if solve.variant == position)
        alone = dict.fromkeys(self.variant_of, 0)
        return Plan(self.variants[position].sweep, (self.variants[position],), self.stages, solves, alone)

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
        """Identity of the plan: which stages fill the tables, in which order."""
        return identity([
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


def cell_ids(solve: Solve, layer_set: LayerSet, lambdas: Sequence[float], scale: str) -> list[str]:
    """Return the identities of the cells of one layer set: the hash of the canonical JSON of what fixes them.

    The JSON is {"groups", "lambda", "problem", "scale"}, with "learning_rate" where the grid has several; its constant
    parts are written once for all lambdas.
    """
    before = f'{{"groups":{canonical_json(layer_set.groups)},"lambda":'
    rate = "" if solve.learning_rate is None else f'"learning_rate":{json.dumps(solve.learning_rate)},'
    after = f',{rate}"problem":"{solve.problem_id}","scale":"{scale}"}}'
    return [digest(f"{before}{json.dumps(strength)}{after}") for strength in lambdas]


def make_plan(sweep: Sweep, surveys: Sequence[Survey]) -> Plan:
    """Plan a sweep.

    Args:
        sweep: the sweep.
        surveys: facts about the model and data of each of its variants.

    Raises:
        SpecError: the grid asks for something that the model or the data do not have.
    """
    found: list[Variant] = []
    stages: dict[str, Stage] = {}
    variant_of: dict[str, int] = {}
    solves: list[Solve] = []
    additions: list[Additions] = []
    for position, ((choice, single), survey) in enumerate(zip(variants(sweep), surveys, strict=True)):
        variant = _variant(choice, single, survey)
        own_stages, own_solves, own_additions = _stages_of(variant)
        found.append(variant)
        # Variants that differ in the learning rate alone add the same.
        additions.extend(replace(each, variant=position) for each in own_additions if each.stage.stage_id not in stages)
        for stage in own_stages:
            stages.setdefault(stage.stage_id, stage)
            variant_of.setdefault(stage.stage_id, position)
        solves.extend(replace(each, variant=position, learning_rate=choice.learning_rate) for each in own_solves)
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
        sets = tuple(expand_layer_sets(spec.grid.layer_sets, survey.groups, head_in_kernel=spec.head.in_kernel))
    except SpecError as error:
        raise SpecError(f"{choice}: {error}" if choice.task else str(error)) from None
    return Variant(choice, sweep, survey, Sizes.of(sweep, survey, sets), sets)


def _stages_of(variant: Variant) -> tuple[list[Stage], list[Solve], list[Additions]]:
    """Return the stages of a variant, each after what it needs, and those that fill tables."""
    stages: list[Stage] = []
    solves: list[Solve] = []
    trained: list[Stage] = []
    additions: list[Additions] = []
    for seed in dict.fromkeys(variant.sweep.spec.grid.seeds):
        planner = _SeedPlanner(variant, seed)
        stages.extend(planner.shared_stages())
        solves.extend(planner.solves())
        trained.extend(planner.trained)
        if variant.sweep.spec.kernel.additions:
            adding = planner.adding()
            stages.extend(adding.further_tiles.values())
            additions.extend(adding.additions(seed))
    stages.extend(solve.stage for solve in solves)
    stages.extend(trained)
    stages.extend(comparison.stage for solve in solves for comparison in solve.comparisons)
    stages.extend(each.stage for each in additions)
    return stages, solves, additions


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


class _SeedPlanner:
    """The stages of one seed of a variant."""

    def __init__(self, variant: Variant, seed: int) -> None:
        sizes = variant.sizes
        self.spec = variant.sweep.spec
        self.sweep = variant.sweep
        self.survey = variant.survey
        self.layer_sets = variant.layer_sets
        self.sizes = sizes
        self.seed = seed
        self.dataset = self._dataset()
        self.head = self._head()
        self.train = self._captures("train", sizes.train_shards)
        self.eval = self._captures("eval", sizes.eval_shards)
        self.tiles, self.eval_tiles = self._tiles()
        self.trained: list[Stage] = []

    def shared_stages(self) -> Iterator[Stage]:
        """Yield everything that several layer sets need."""
        yield self.dataset
        yield from [self.head] if self.head else []
        yield from [*self.train, *self.eval]
        yield from [*self.tiles.values(), *self.eval_tiles.values()]

    def solves(self) -> Iterator[Solve]:
        """Yield the stages that fill cells: for each training-set size, all layer sets."""
        batch = -(-len(self.layer_sets) // MANY_LAYER_SETS)
        for n_train in dict.fromkeys(self.spec.grid.n_train):
            problem = self._problem(n_train)
            problem_id = identity(problem)
            for method in ("dual", "primal"):
                chosen = [s for s in self.layer_sets if self.sizes.method(s, n_train) == method]
                inputs = self._solve_inputs(method, n_train) if chosen else {}
                for start in range(0, len(chosen), batch):
                    part = tuple(chosen[start : start + batch])
                    stage = Stage("solve", self._solve_parameters(problem, method, part), inputs)
                    comparisons = tuple(self._comparisons(problem, part))
                    yield Solve(stage, self.seed, n_train, part, problem_id, comparisons)

    def _comparisons(self, problem: dict[str, Any], layer_sets: Sequence[LayerSet]) -> Iterator[Comparison]:
        """Yield, for each layer set, the stages that train some of its lambdas side by side and compare."""
        section = self.spec.finetune
        if section is None:
            return
        lambdas = self.spec.grid.lambdas.numbers()
        planner = FinetunePlanner(self.spec, section, problem, self.seed, self._fits)
        inputs = self._training_inputs(problem["n_train"])
        for position, layer_set in enumerate(layer_sets):
            for first in range(0, len(lambdas), section.side_by_side):
                together = lambdas[first : first + section.side_by_side]
                *stages, comparison = planner.stages(layer_set, together, inputs)
                self.trained.extend(stages)
                yield Comparison(comparison, position, first, len(together))

    def _fits(self, stage: Stage) -> bool:
        return training_memory(self.sizes, self.survey, stage) <= self.spec.compute.memory_budget

    def _training_inputs(self, n_train: int) -> dict[str, tuple[Ref, ...]]:
        shards = self.sizes.shards_of(n_train)
        return {
            "dataset": (_ref(self.dataset),),
            **({"head": (_ref(self.head),)} if self.head else {}),
            "train": tuple(_ref(stage) for stage in self.train[:shards]),
            "eval": tuple(_ref(stage) for stage in self.eval),
        }

    def _dataset(self) -> Stage:
        task = self.spec.task.model_dump(mode="json", exclude={"data", "sample_seed"})
        own = self.spec.task.sample_seed
        return Stage("dataset", {
            "data": self.sweep.sources.data.content_id,
            "tokenizer": self.sweep.sources.model.content_id,
            "task": task,
            "n_outputs": self.survey.n_outputs,
            "n_train": max(self.spec.grid.n_train),
            "seed": self.seed if own is None else own,
        })  # fmt: skip

    def _scorer(self) -> dict[str, Any]:
        spec = self.spec
        adapter_seed, head_seed = spec.adapter.seed, spec.head.seed
        return {
            "model": self.sweep.sources.model.content_id,
            "dtype": spec.model.dtype,
            "attention": spec.model.attention,
            "adapter": spec.adapter.model_dump(mode="json", exclude={"seed"}),
            "adapter_seed": self.seed if adapter_seed is None else adapter_seed,
            "head": spec.head.model_dump(mode="json", exclude={"seed"}),
            "head_seed": self.seed if head_seed is None else head_seed,
            "n_outputs": self.survey.n_outputs,
            "batch_tokens": spec.compute.batch_tokens,
            "threads": spec.compute.threads,
        }

    def _head(self) -> Stage | None:
        if self.spec.head.kind not in ("ridge", "logistic"):
            return None
        return Stage("head", self._scorer(), {"dataset": (_ref(self.dataset),)})

    def _captures(self, split: str, shards: Sequence[tuple[int, int]]) -> list[Stage]:
        inputs = {"dataset": (_ref(self.dataset),)}
        if self.head:
            inputs["head"] = (_ref(self.head),)
        parameters = self._scorer() | {
            "outputs": self.spec.kernel.outputs,
            "groups": list(self.sizes.groups),
            "batch_examples": self.sizes.batch_examples,
            "split": split,
        }
        return [Stage("capture", parameters | {"start": start, "stop": stop}, inputs) for start, stop in shards]

    def _tiles(self) -> tuple[dict[tuple[int, int], Stage], dict[tuple[int, int], Stage]]:
        """Return the tiles that some layer set needs, by the positions of their shards."""

        def tile(left: Stage, right: Stage) -> Stage:
            return self._tile(left, right, self.sizes.dual_groups)

        n_needed = self.sizes.dual_train_shards
        needed = self.train[:n_needed]
        symmetric = self.spec.kernel.kind != "asymmetric_sign"
        train = {
            (row, column): tile(left, right)
            for row, left in enumerate(needed)
            for column, right in enumerate(needed)
            if column <= row or not symmetric
        }
        evaluation = {
            (row, column): tile(left, right)
            for row, left in enumerate(self.eval if needed else [])
            for column, right in enumerate(needed)
        }
        return train, evaluation

    def _tile(self, left: Stage, right: Stage, groups: Sequence[str]) -> Stage:
        """Return the stage that makes the kernel blocks of some groups for a pair of shards."""
        kernel = self.spec.kernel
        parameters = {
            "kind": kernel.kind,
            "outputs_per_example": self.survey.n_outputs if kernel.outputs == "trace" else 1,
            "gram_dtype": self.spec.compute.gram_dtype,
            "threads": self.spec.compute.threads,
            "groups": list(groups),
        }
        return Stage("gram", parameters, {"left": (_ref(left),), "right": (_ref(right),)})

    def adding(self) -> AdditionsPlanner:
        """Return what plans the additions of the seed."""
        return AdditionsPlanner(
            spec=self.spec,
            sizes=self.sizes,
            layer_sets=self.layer_sets,
            groups=self.survey.groups,
            shards=self.train,
            tiles=self.tiles,
            make_tile=self._tile,
        )

    def _problem(self, n_train: int) -> dict[str, Any]:
        kernel = self.spec.kernel.model_dump(mode="json", exclude={"additions"})
        compute = {"gram_dtype": self.spec.compute.gram_dtype, "shard_examples": self.sizes.shard_examples}
        return {
            "dataset": self.dataset.stage_id,
            "scorer": self._scorer(),
            "kernel": kernel,
            "compute": compute,
            "n_train": n_train,
        }

    def _solve_inputs(self, method: str, n_train: int) -> dict[str, tuple[Ref, ...]]:
        shards = self.sizes.shards_of(n_train)
        inputs = {
            "dataset": (_ref(self.dataset),),
            "train": tuple(_ref(stage) for stage in self.train[:shards]),
            "eval": tuple(_ref(stage) for stage in self.eval),
        }
        if method == "dual":
            inputs["tiles"] = tuple(_ref(t) for (row, column), t in self.tiles.items() if max(row, column) < shards)
            inputs["eval_tiles"] = tuple(_ref(t) for (_, column), t in self.eval_tiles.items() if column < shards)
        return inputs

    def _solve_parameters(
        self, problem: dict[str, Any], method: str, layer_sets: tuple[LayerSet, ...]
    ) -> dict[str, Any]:
        return {
            "problem": problem,
            "method": method,
            "layer_sets": [list(layer_set.groups) for layer_set in layer_sets],
            "lambdas": list(self.spec.grid.lambdas.numbers()),
            "lambda_scale": self.spec.grid.lambdas.scale,
            "task_kind": self.spec.task.kind,
            "predictions": self.spec.results.predictions,
        }


def _ref(stage: Stage) -> Ref:
    return stage.kind, stage.stage_id
