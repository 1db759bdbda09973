"""Notes about a plan, which are shown beside its costs: what its user might not expect."""

from collections.abc import Iterable, Sequence

from orchestrator.cli.classes_view import titled
from orchestrator.plan.estimate import Cost
from orchestrator.plan.plan import Plan
from orchestrator.stages.finetune import FINETUNE, runs_of
from orchestrator.stages.finetune.costs import by_rows
from orchestrator.stages.gram import GRAM
from orchestrator.store.stage import Stage
from orchestrator.sweep.double_precision import product_note
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.gpu_kind import likely_gpu
from orchestrator.sweep.refinements import refinements_of
from orchestrator.sweep.training_estimates import FITTED_HEADS, missing_estimates
from orchestrator.sweep.variant import Variant

MOST_NAMED = 8
"""Layer sets that a note names."""

HEAD_OUTSIDE = "the head is trained but not in the kernel: the linearization lacks it"

AVERAGED = (
    "kernel.outputs: trace averages over outputs, and training does not: trained to its end, the linearization meets "
    "the ridge solution of outputs: full, not that of the cell"
)
FURTHER = (
    "finetune.n_train: cells are trained on {n_trained} examples, their linearization by products with the Jacobian; "
    "the ridge solutions beside them are fitted to the first {n_kernel}"
)
TOO_LONG = (
    "task.max_length: {kept} is more than the {room} tokens that the model takes: a text of more than {room} would not "
    "be cut, and its stage would fail; set task.max_length to {room} or less"
)
NORM_OF_THE_KERNEL = (
    "{keys}: parameter_distance is a norm in the kernel's space, not a distance of parameters as finetune_distance and "
    "linearized_distance are"
)


def notes_of(plan: Plan) -> list[str]:
    """Return a sentence for each unexpected property of the kernel, the training and the examples of a plan."""
    return [*kernel_notes(plan), *training_notes(plan), *_data_notes(plan)]


def kernel_notes(plan: Plan) -> list[str]:
    """Return a sentence for each column about the kernel whose content differs from what its name suggests."""
    kernel = plan.sweep.spec.kernel
    notes = _empty_estimates(plan)
    keys = {"kernel.kind: sign": kernel.kind == "sign", "kernel.outputs: trace": kernel.outputs == "trace"}
    if kernel.kind == "asymmetric_sign" or not any(keys.values()):
        return notes  # without symmetry there is no such norm, and the column is empty
    return [*notes, NORM_OF_THE_KERNEL.format(keys=", ".join(key for key, is_set in keys.items() if is_set))]


def rows_notes(plan: Plan) -> list[str]:
    """Return a sentence for each place in which Jacobian rows are kept: which it is, and why."""
    places = {variant.rows_place.resident: variant.rows_place for variant in plan.variants}
    return [
        f"Jacobian rows {'stay in memory' if each.resident else 'go to the disk'}: {each.why}"
        for each in places.values()
    ]


def joined_notes(plan: Plan, missing: Sequence[Stage]) -> list[str]:
    """Return for each variant what is made once more for layer sets that joined, and why; none where nothing is.

    Args:
        plan: the plan.
        missing: its stages that are to be computed.
    """
    return [note for variant in plan.variants if (note := _joined_note(plan, variant, missing))]


def _joined_note(plan: Plan, variant: Variant, missing: Sequence[Stage]) -> str:
    found = [each.blocks for each in variant.refinements]
    tiles = [
        stage.parameters.blocks
        for stage in missing
        if stage.of is GRAM and plan.of(stage) is variant and stage.parameters.blocks in found[1:]
    ]
    if not tiles:
        return ""
    groups = {group for blocks in tiles for block in blocks for group in block}
    lacking = {found.index(blocks) for blocks in tiles}
    sets = [
        each.name
        for each in variant.layer_sets
        if not lacking.isdisjoint(refinements_of(each.groups, variant.refinements))
    ]
    named = ", ".join(sets[:MOST_NAMED]) + (f" and {len(sets) - MOST_NAMED} more" if len(sets) > MOST_NAMED else "")
    of = f"{variant.choice}: " if str(variant.choice) else ""
    return (
        f"{of}{len(tiles)} tiles of {len(groups)} of {len(variant.sizes.dual_groups)} groups are made for layer sets "
        f"that joined: {named}; rows of these groups are {_how_made(variant, lacking)}, and everything else stays"
    )


def _how_made(variant: Variant, further: Iterable[int]) -> str:
    """Say how the rows are made that further blocks are products of, given by the positions of their refinements."""
    asked = [each.rows for each in variant.refinements]
    if any(asked[number] not in asked[:number] for number in further):
        return "captured"
    return "captured again" if variant.rows_place.resident else "read from the disk again"


def product_notes(plan: Plan, found: Sequence[Cost], folder: ResultsFolder) -> list[str]:
    """Return what products in float64 cost where blocks are made by a GPU that is slow at them; no note elsewhere.

    The GPU is the one of this machine, or that of the results folder where there is none here.

    Args:
        plan: the plan.
        found: the costs of its kinds of stages.
        folder: its results folder.
    """
    compute = plan.sweep.spec.compute
    flops = sum(cost.flops for cost in found if cost.kind == "gram")
    if compute.device == "cpu" or compute.gram_dtype != "float64" or not flops:
        return []
    import torch

    device = torch.device("cuda") if torch.cuda.is_available() else None
    gpu = likely_gpu(folder)
    note = None if gpu is None else product_note(gpu, flops, device)
    return [] if note is None else [note]


def _empty_estimates(plan: Plan) -> list[str]:
    """Return the reason why a sweep with a fitted head has no GCV; no note if it has GCV."""
    spec = plan.sweep.spec
    missing = missing_estimates(spec.head.kind, spec.kernel)
    if spec.head.kind not in FITTED_HEADS or "gcv" not in missing:
        return []
    other = missing.get("leave_one_out_loss")
    return [
        f"head.kind: {spec.head.kind}: gcv is empty, for {missing['gcv']}; "
        + (f"so is leave_one_out_loss, for {other}" if other else "leave_one_out_loss is not")
    ]


def training_notes(plan: Plan) -> list[str]:
    """Return a sentence for each unexpected property of the training; none without training."""
    spec, notes = plan.sweep.spec, []
    if spec.finetune is not None and spec.kernel.outputs == "trace":
        notes.append(AVERAGED)
    if spec.head_trained and not spec.head.in_kernel:
        notes.append(HEAD_OUTSIDE)
    runs = [run for stage in plan.stages if stage.of is FINETUNE for run in runs_of(stage)]
    linearized = [run for run in runs if run.parameters.model == "linearized"]
    without_rows = sum(not by_rows(run) for run in linearized)
    notes += dict.fromkeys(
        FURTHER.format(n_trained=cells.problem.n_train, n_kernel=cells.kernel_n_train)
        for cells in (run.parameters.cells for run in runs)
        if cells.kernel_n_train is not None
    )
    without_rows -= sum(run.parameters.cells.kernel_n_train is not None for run in linearized)
    if without_rows and spec.finetune and spec.finetune.linearization is None:
        notes.append(
            f"{without_rows} of {len(linearized)} linearizations are trained by products with the Jacobian, for their "
            "rows do not fit compute.memory_budget"
        )
    return notes


def _data_notes(plan: Plan) -> list[str]:
    """Return a sentence for repeated texts and for classes without examples, of each task."""
    found = (f"{variant.choice.task}: {note}" if variant.choice.task else note
             for variant in plan.variants for note in _notes_of_variant(variant))  # fmt: skip
    return list(dict.fromkeys(found))


def _notes_of_variant(variant: Variant) -> list[str]:
    survey, notes = variant.survey, []
    if survey.room is not None and (kept := variant.sweep.spec.task.max_length) > survey.room:
        notes.append(TOO_LONG.format(kept=kept, room=survey.room))
    if survey.repeats_train:
        notes.append(
            f"{survey.repeats_train} of {survey.pool_train} examples of split {variant.sweep.spec.task.train_split} "
            "have a text that an earlier one has"
            + (
                ", so that held-out evaluation examples may stand among the training examples (column eval_in_train); "
                "task.distinct_texts: true keeps each text once"
                if survey.shared_pool
                else "; task.distinct_texts: true keeps each text once"
            )
        )
    if survey.repeats_eval:
        notes.append(
            f"{survey.repeats_eval} of {survey.pool_eval} evaluation examples have a text that an earlier one has"
        )
    if survey.shared_texts:
        notes.append(
            f"{survey.shared_texts} of {survey.pool_eval} evaluation examples have a text of the training split "
            "(column eval_in_train says how many were trained on); task.distinct_texts: true takes those out of it"
        )
    if empty := [titled(survey, of) for of, size in enumerate(survey.class_sizes) if not size]:
        listed = ", ".join(empty[:8]) + (", ..." if len(empty) > 8 else "")
        notes.append(f"no training example is of class {listed}: nothing is learned about it")
    return notes
