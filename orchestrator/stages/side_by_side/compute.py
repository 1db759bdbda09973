"""The stage `side_by_side`: trains the runs of several `finetune` stages, of other seeds or rates, in one model."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from finetune.training.loop import train_cells
from finetune.training.origins import starting_from
from finetune.training.run import Observer
from finetune.training.settings import Cell
from finetune.training.trainable import Displacement
from orchestrator.identity import canonical_json
from orchestrator.stages.context.problem import load_problem
from orchestrator.stages.context.work import Product, Work
from orchestrator.stages.finetune.trained_cells import arrays_of, facts_of
from orchestrator.stages.finetune.training_inputs import TrainingInputs
from orchestrator.stages.side_by_side import runs_of
from orchestrator.store.batched import Array
from orchestrator.store.stage import Stage


def compute(stage: Stage, work: Work) -> Product:
    """Train the cells of all members.

    The artifact holds `<member>.<array>`, with the arrays of a stage `finetune`; the facts hold those of each member.
    """
    members = runs_of(stage)
    inputs = _inputs(members, work)
    starts = list(dict.fromkeys(inputs))
    lambdas = {start: start.lambdas() for start in starts}
    rates = [member.parameters["training"]["learning_rate"] for member in members]
    cells = [Cell(strength, rate) for rate, own in zip(rates, inputs, strict=True) for strength in lambdas[own]]
    ends = np.cumsum([0, *(len(lambdas[own]) for own in inputs)])
    slices = [slice(int(first), int(last)) for first, last in pairwise(ends)]
    n_examples = stage.parameters["members"][0]["kernel_examples"]
    settings = starts[0].settings
    run = train_cells(
        starts[0].model_of(
            [start.origin() for start in starts], [starts.index(own) for own in inputs for _ in lambdas[own]]
        ),
        [start.targets() for start in starts],
        settings,
        cells,
        seeds=[start.seed for start in starts],
        checkpoint=work.checkpoint(stage),
        observer=_observer(inputs, slices, n_examples) if n_examples else None,
        at_once=work.halved(settings.batch_examples),
    )
    arrays: dict[str, Array] = {}
    facts = []
    for number, (own, chosen, rate) in enumerate(zip(inputs, slices, rates, strict=True)):
        part = run.part(chosen)
        arrays |= {
            f"{number}.{name}": values for name, values in arrays_of(own, part, lambdas[own], n_examples).items()
        }
        facts.append(facts_of(part, rate))
    return Product({"members": facts}, work.write_arrays(stage, arrays))


def _inputs(members: Sequence[Stage], work: Work) -> list[TrainingInputs]:
    """Return the inputs of each member, in one model; members that differ only in the learning rate share theirs."""
    found: dict[str, TrainingInputs] = {}
    keys = [canonical_json([member.parameters["problem"], member.parameters["seed"]]) for member in members]
    for key, member in zip(keys, members, strict=True):
        if key in found:
            continue
        inputs = TrainingInputs(member, work, load_problem(member, work))
        if found:
            inputs.share(found[keys[0]])
        found[key] = inputs
    work.forget_scorer()  # the last seed's, which would take memory beside the model that is trained
    return [found[key] for key in keys]


def _observer(inputs: Sequence[TrainingInputs], slices: Sequence[slice], n_examples: int) -> Observer:
    """Return an observer that follows the kernel of each member at that member's origin."""
    changes = {own: own.kernel_change(n_examples) for own in dict.fromkeys(inputs)}

    def observe(displacements: Mapping[int, Displacement]) -> Mapping[str, NDArray[np.float64]]:
        found: list[Mapping[str, NDArray[np.float64]]] = []
        for own, chosen in zip(inputs, slices, strict=True):
            of_member = {cell: moved for cell, moved in displacements.items() if chosen.start <= cell < chosen.stop}
            with starting_from(own.weights):
                found.append(changes[own](of_member))
        return {name: np.concatenate([each[name] for each in found]) for name in found[0]}

    return observe
