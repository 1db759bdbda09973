"""The stage `solve`: one decomposition for each of some layer sets, for its spectrum and for every lambda.

The decomposition is as large as the kernel and is never written to disk. The stored arrays are small, and the cells of
any lambda follow from them (`orchestrator.stages.solve.path`), so that a stage depends on no lambda of the grid; where
nothing is decomposed, it depends on the lowest one only.
"""

from typing import Any

from orchestrator.stages.context.work import Product, Work
from orchestrator.stages.solve import SolveParameters
from orchestrator.stages.solve.scalars import packed
from orchestrator.stages.solve.solver import Solver
from orchestrator.store.batched import Array
from orchestrator.store.stage import Stage


def compute(stage: Stage[SolveParameters], work: Work) -> Product:
    """Decompose the kernel of each layer set once; keep its spectrum and the arrays that give the path of any lambda.

    The artifact holds, for S layer sets, the `spectrum_scalars` (S,) as `packed` stores them, the arrays of `KeptPath`
    as `<name>.<set>`, `eigenvalues.<set>` among them, and the outputs before training, `initial` and `eval_initial`. A
    kernel that `kernel.decomposition: iterative` does not decompose has the arrays of `IterativeSolver.numbers` in
    their place, and the facts of `IterativeSolver.facts`. With contributions there are the arrays of
    `KeptContributions` too, and the fact `contributing` names the blocks of each set; with trajectories `flow.<set>`,
    (numbers, 2, 1 + L, S), of its names in the fact `flow`: see `flow_numbers`. Facts say under `fallbacks` why a set
    was decomposed on the processor although a GPU was asked for, and under `missing_estimates` why columns are nan.
    """
    solver = _solver(stage, work)
    columns: dict[str, list[Any]] = {}
    arrays: dict[str, Array] = {}
    facts: dict[str, Any] = {"missing_estimates": solver.missing} if solver.missing else {}
    for position, groups in enumerate(stage.parameters.layer_sets):
        numbers, lists = solver.numbers(groups)
        if solver.decomposer.fallbacks:
            facts.setdefault("fallbacks", {})[str(position)] = solver.decomposer.fallbacks.pop()
        for name, value in numbers.items():
            columns.setdefault(name, []).append(value)
        arrays |= {f"{name}.{position}": values for name, values in lists.items()}
    facts |= solver.facts() | solver.further.facts()
    columns |= _precision_errors(stage, work)
    named, scalars = packed(columns)
    facts |= named
    arrays |= scalars | {"initial": solver.problem.initial, "eval_initial": solver.problem.eval_initial}
    return Product(facts, work.write_arrays(stage, arrays))


def _solver(stage: Stage[SolveParameters], work: Work) -> Solver:
    iterative = stage.parameters.iterative
    if iterative is not None:
        from orchestrator.stages.solve.iterative import IterativeSolver

        return IterativeSolver(stage, work, iterative)
    return Solver(stage, work)


def _precision_errors(stage: Stage[SolveParameters], work: Work) -> dict[str, list[float]]:
    """Return the errors from half precision, one number for each layer set; empty if the model is not in it."""
    if "precision" not in stage.inputs:
        return {}
    errors, sets = work.input(stage, "precision").facts, stage.parameters.layer_sets
    return {
        "row_precision_error": [max(errors["groups"][group] for group in groups) for groups in sets],
        "kernel_precision_error": [errors["kernel"]] * len(sets),
    }
