"""The solve stages of a seed: for each training-set size, all layer sets."""

from collections.abc import Sequence

from orchestrator.identity import identity
from orchestrator.spec import Spec
from orchestrator.stages.base.cells import Solve
from orchestrator.stages.base.parameters import ProblemParameters
from orchestrator.stages.base.scope import Planning, SeedScope, refs
from orchestrator.stages.capture import captures
from orchestrator.stages.dataset import DATASET
from orchestrator.stages.gram import tiles_of_kernel
from orchestrator.stages.head import HEAD
from orchestrator.stages.head_refits import HEAD_REFITS
from orchestrator.stages.precision import PRECISION, errors_of
from orchestrator.stages.solve import SOLVE, FlowParameters, IterativeParameters, Method, SolveParameters
from orchestrator.stages.solve.kept_solves import KeptSolves
from orchestrator.store.stage import Inputs, Stage, as_json
from orchestrator.sweep.layer_sets import LayerSet
from orchestrator.sweep.refinements import Groups, refinements_of
from orchestrator.sweep.training_estimates import ERROR_ESTIMATES, missing_estimates

MANY_LAYER_SETS = 1024
"""Number of layer sets beyond which one solve stage serves several, which limits the number of files."""

METHODS: tuple[Method, ...] = ("dual", "primal")


def plan_solves(scope: SeedScope) -> None:
    """Add the stages that fill the cells of a seed."""
    variant, planning = scope.variant, scope.planning
    kept = planning.shared(_kept_solves)
    batch = -(-len(variant.layer_sets) // MANY_LAYER_SETS)
    for n_train in dict.fromkeys(variant.sweep.spec.grid.n_train):
        ((_, dataset),) = scope.inputs(n_train, DATASET)[DATASET.name]
        problem = scope.problem(n_train, dataset)
        problem_id = identity(as_json(problem))
        for method in METHODS:
            chosen = [each for each in variant.layer_sets if variant.sizes.method(each, n_train) == method]
            for start in range(0, len(chosen), batch):
                part = tuple(chosen[start : start + batch])
                stage = Stage(SOLVE, _parameters(scope, problem, method, part), _inputs(scope, method, n_train, part))
                planning.fill(Solve(
                    stage=kept.instead_of(stage) if kept else stage,
                    variant=scope.position,
                    seed=scope.seed,
                    n_train=n_train,
                    layer_sets=part,
                    problem_id=problem_id,
                    learning_rate=variant.choice.learning_rate,
                ))  # fmt: skip


def _kept_solves(planning: Planning) -> KeptSolves | None:
    return KeptSolves(planning.store) if planning.store else None


def _inputs(scope: SeedScope, method: Method, n_train: int, layer_sets: Sequence[LayerSet]) -> Inputs:
    """Return the inputs of a stage, the same object for all that read the same."""
    found = scope.variant.refinements
    used = {number for each in layer_sets for number in refinements_of(each.groups, found)} if method == "dual" else ()
    refinements = tuple(sorted(used))
    rows = scope.variant.rows_with(group for each in layer_sets for group in each.groups)
    key = SOLVE.name, method, n_train, refinements, rows
    return scope.kept(key, lambda: _inputs_of(scope, method, n_train, refinements, rows))


def _inputs_of(scope: SeedScope, method: Method, n_train: int, refinements: Sequence[int], rows: Groups) -> Inputs:
    inputs = scope.inputs(n_train, DATASET)
    if precision := errors_of(scope, rows):
        inputs[PRECISION.name] = (precision.ref,)
    left_out = _left_out(scope)
    if left_out and (method == "primal" or scope.variant.sweep.spec.kernel.decomposition == "full"):
        inputs["left_out"] = (left_out.ref,)
    if method == "dual":
        inputs["tiles"] = refs(tiles_of_kernel(scope, "train", n_train, refinements))
        inputs["eval_tiles"] = refs(tiles_of_kernel(scope, "eval", n_train, refinements))
    else:
        train = captures(scope, "train", rows)[: scope.variant.sizes.shards_of(n_train)]
        inputs |= {"train": refs(train), "eval": refs(captures(scope, "eval", rows))}
    return inputs


def _left_out(scope: SeedScope) -> Stage | None:
    """Return the stage with the changes of the initial outputs without one example; None if there is none."""
    head, kind = scope.only(HEAD), scope.scorer.head.kind
    if head is None or missing_estimates(kind, scope.variant.sweep.spec.kernel).keys() >= set(ERROR_ESTIMATES):
        return None
    return head if kind == "ridge" else scope.only(HEAD_REFITS)


def _parameters(
    scope: SeedScope, problem: ProblemParameters, method: Method, layer_sets: Sequence[LayerSet]
) -> SolveParameters:
    spec, iterative = scope.variant.sweep.spec, None
    if method == "dual" and spec.kernel.decomposition == "iterative":
        iterative = IterativeParameters(min(spec.grid.lambdas.numbers()), spec.grid.lambdas.scale, scope.seed)
    groups = tuple(each.groups for each in layer_sets)
    return SolveParameters(problem, method, groups, iterative, spec.kernel.contributions, _flow(spec))


def _flow(spec: Spec) -> FlowParameters | None:
    asked, lambdas = spec.kernel.flow_times, spec.grid.lambdas
    if asked is None:
        return None
    return FlowParameters(asked.numbers(), asked.scale, lambdas.numbers(), lambdas.scale)
