"""A trained cell of a sweep as a folder that peft loads, with a page that says how."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.errors import NotExportedError, ResultsError
from orchestrator.plan.plan import Plan, make_plan
from orchestrator.stages.base.cells import Comparison, Solve, cell_ids
from orchestrator.stages.finetune import Run, runs_of
from orchestrator.store.files import explained_output, make_folder
from orchestrator.sweep.folder import ResultsFolder, Sweep
from orchestrator.sweep.layer_sets import HEAD
from orchestrator.sweep.settings import model_settings
from orchestrator.sweep.sources import find_again
from orchestrator.sweep.survey import kept_surveys

if TYPE_CHECKING:
    from finetune.model.adapted import ScorerSettings
    from finetune.training.peft_folder import PeftFolder
    from orchestrator.store.artifacts import ArtifactStore

N_EXAMPLES = 4
"""Evaluation examples whose logits are compared."""

SHORTEST = 6
"""Characters of a cell's identity that are enough if only one cell begins with them."""


@dataclass(frozen=True)
class TrainedCell:
    """A cell whose model was trained.

    Attributes:
        cell_id: its identity.
        solve: the solve stage that fills it.
        comparison: the comparison that has its training.
        position: its number among the cells of that.
        strength: its lambda, as the spec gives it.
    """

    cell_id: str
    solve: Solve
    comparison: Comparison
    position: int
    strength: float

    @property
    def layer_set(self) -> str:
        """Name of its layer set."""
        return self.solve.layer_sets[self.comparison.layer_set].name


def export_adapter(folder: ResultsFolder, cell: str, output: Path, *, trusts_code: bool = False) -> "PeftFolder":
    """Write the trained weights of a cell as an adapter of peft, load it again and compare its logits.

    Nothing is trained again: a sweep keeps the trained weights of its cells.

    Args:
        folder: the results folder.
        cell: identity of the cell, column `cell_id`; its beginning is enough.
        output: folder to write, which must not exist or be empty.
        trusts_code: whether code that comes with the model may run.

    Raises:
        ResultsError: there is no such cell, it was not trained, or `output` is not empty.
        NotExportedError: no adapter of peft holds what was trained; says why.
        SweepError: the model is no longer there, or is another one.
    """
    _refuse_full(output)
    sweep = replace(folder.existing(), trusts_code=trusts_code)
    if sweep.spec.finetune is None:
        raise ResultsError(
            f"{folder.root} holds a sweep that trains nothing: its spec has no section `finetune`; add one, as "
            "`ntksweep init --full` writes it, and run the spec again"
        )
    store = folder.artifacts()
    plan = make_plan(sweep, kept_surveys(sweep, store), store)
    found = _cell_named(plan, cell)
    run = _run_of(plan, found, store)
    from finetune.errors import FinetuneError
    from finetune.training.peft_folder import write_peft_folder
    from ntk_dist.errors import NtkError
    from orchestrator.stages.context.tokenized import read_tokens
    from orchestrator.stages.finetune.trained_cells import TrainedCells

    of_cell = _with_the_same_model(plan.variants[found.solve.variant].sweep)
    trained = TrainedCells(store.open(*_trained_by(found)), found.comparison.stage.parameters.run)
    tokens = read_tokens(store.open(*run.inputs["dataset"][0]), "eval", 0, N_EXAMPLES)
    batches = [tokens.batch(np.array([number])) for number in range(len(tokens.offsets) - 1)]
    make_folder(output)
    try:
        with explained_output(output):
            written = write_peft_folder(
                _settings(of_cell, run, store), trained.displacement(found.position), output, batches
            )
            (output / "README.md").write_text(_page(of_cell, found, written), encoding="utf-8")
    except (FinetuneError, NtkError) as error:
        raise NotExportedError(f"cell {found.cell_id}: {error}") from None
    return written


def _refuse_full(output: Path) -> None:
    if os.path.lexists(output) and not (output.is_dir() and not any(output.iterdir())):
        raise ResultsError(f"{output} exists; name another folder for the adapter")


def _cell_named(plan: Plan, cell: str) -> TrainedCell:
    """Return the cell whose identity begins with a text.

    Raises:
        ResultsError: there is none, or several.
    """
    found = [each for each in _trained_cells(plan) if each.cell_id.startswith(cell)] if len(cell) >= SHORTEST else []
    if len(found) == 1:
        return found[0]
    if found:
        raise ResultsError(f"{len(found)} cells begin with `{cell}`; write more of the identity")
    raise ResultsError(
        f"there is no cell `{cell}`; the column cell_id names them: `ntksweep show FOLDER --layer-set NAME` shows it, "
        "and `ntksweep export FOLDER --output cells.csv` writes it for all"
    )


def _trained_cells(plan: Plan) -> Iterator[TrainedCell]:
    scale = plan.sweep.spec.grid.lambdas.scale
    for solve in plan.solves:
        for comparison in solve.comparisons:
            lambdas = [plan.lambdas[position] for position in comparison.in_grid.values()]
            names = cell_ids(solve, solve.layer_sets[comparison.layer_set], lambdas, scale)
            for number, name, strength in zip(comparison.in_grid, names, lambdas, strict=True):
                yield TrainedCell(name, solve, comparison, number, strength)


def _trained_by(cell: TrainedCell) -> tuple[str, str]:
    (reference,) = cell.comparison.stage.inputs["trained"]
    return reference


def _run_of(plan: Plan, cell: TrainedCell, store: "ArtifactStore") -> Run:
    kind, stage_id = _trained_by(cell)
    if not store.has(kind, stage_id):
        raise ResultsError(f"cell {cell.cell_id} is not trained yet; `ntksweep run SPEC` does that")
    stage = next(each for each in plan.stages if each.stage_id == stage_id)
    return runs_of(stage)[cell.comparison.stage.parameters.run]


def _with_the_same_model(sweep: Sweep) -> Sweep:
    """Return a sweep with its model where it lies now.

    Raises:
        SourceError: it is not there.
        ResultsError: another one is there.
    """
    before = sweep.sources.model
    now = find_again("model", before)
    if now.content_id != before.content_id:
        raise ResultsError(
            f"the model at {before.location} is another one than the sweep was run with, so that its adapters do not "
            "fit it; put the model back"
        )
    return replace(sweep, sources=replace(sweep.sources, model=now))


def _settings(sweep: Sweep, run: Run, store: "ArtifactStore") -> "ScorerSettings":
    """Return the model at the point from which the cell was trained, on a processor."""
    from finetune.model.adapted import ScorerSettings

    cells, p = run.parameters.cells, run.parameters.problem.scorer
    groups = (*cells.groups, HEAD) if cells.train_head else cells.groups
    head: Any = store.open(*run.inputs["head"][0]) if "head" in run.inputs else None
    return ScorerSettings(
        replace(model_settings(sweep), dtype=p.dtype, device="cpu", checkpointing=False),
        p.adapter,
        replace(p.head, in_kernel=HEAD in groups),
        p.n_outputs,
        p.adapter_seed,
        p.head_seed,
        {name: np.array(head.array(name)) for name in ("weight", "bias")} if head else None,
        groups,
    )


def _page(sweep: Sweep, cell: TrainedCell, written: "PeftFolder") -> str:
    """Return the page of the folder: what it is, and how it is loaded."""
    spec, model = sweep.spec, sweep.sources.model
    module, _, name = written.model_class.rpartition(".")
    module = "transformers" if module.startswith("transformers.models.") else module
    problem = cell.comparison.stage.parameters.problem
    labels = problem.scorer.n_outputs
    n_outputs = "" if spec.head.kind == "label_words" else f", num_labels={labels}"
    lines = [
        "---", "library_name: peft", f"base_model: {model.location}", "---", "",
        f"# Cell {cell.cell_id} of the sweep {spec.name}", "",
        f"Layer set {cell.layer_set}, lambda {cell.strength:g}, seed {cell.solve.seed}, {problem.n_train} training "
        f"examples; written by ntksweep. Loaded with peft, its logits on {written.n_examples} evaluation examples "
        f"differed from the trained cell's by {written.difference:.1e} at most.", "",
        "```python", "import torch", "from peft import PeftModel", f"from {module} import {name}",
        *(["from safetensors.torch import load_file"] if written.head_bias else []), "",
        f"base = {name}.from_pretrained({model.location!r}, dtype=torch.{spec.model.dtype}{n_outputs})",
        'model = PeftModel.from_pretrained(base, "THIS FOLDER").eval()',
        *(
            [
                'for name, bias in load_file("THIS FOLDER/head_bias.safetensors").items():',
                '    head = model.base_model.model.get_submodule(name.rpartition(".")[0])',
                '    head.modules_to_save["default"].bias = torch.nn.Parameter(bias)',
            ]
            if written.head_bias
            else []
        ),
        "```", "",
        f"- Modules with LoRA: {written.modules}; held whole: {', '.join(written.saved) or 'none'}.",
        *(["- The head is fitted and has biases; the class in transformers has none, so that they are in "
           "head_bias.safetensors."] if written.head_bias else []),
        *([f"- Texts are put into the template {spec.task.template!r}."] if spec.task.template else []),
        *([f"- The outputs are the logits of the words {', '.join(spec.head.words)}."] if spec.head.words else []),
        f"- At most {spec.task.max_length} tokens of a text were read.", "",
    ]  # fmt: skip
    return "\n".join(lines)
