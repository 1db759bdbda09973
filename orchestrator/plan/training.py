"""The stages that train cells: for some lambdas of a layer set the model, its linearization, and the comparison."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestrator.spec import Spec
from orchestrator.spec.finetune_section import FinetuneSection
from orchestrator.stages.compare import COMPARE
from orchestrator.stages.finetune import FINETUNE
from orchestrator.store.stage import Stage
from orchestrator.sweep.layer_sets import HEAD, LayerSet

_OF_THE_PLAN = {
    "epochs", "warmup", "looks", "kernel_examples", "side_by_side", "side_by_side_across", "prefix_cache",
    "linearization", "train_head", "combinations",
}  # fmt: skip
"""Keys of the section that decide which stages are made, not how each of them trains."""

Inputs = Mapping[str, tuple[tuple[str, str], ...]]


class FinetunePlanner:
    """Plans the training of the cells of one seed and training-set size.

    Args:
        spec: the spec.
        section: its section `finetune`.
        problem: everything that fixes the regression problem but layer set and lambda.
        seed: of the grid; draws the order of examples.
        fits: tells whether the memory of a worker holds what a stage needs.
    """

    def __init__(
        self,
        spec: Spec,
        section: FinetuneSection,
        problem: Mapping[str, Any],
        seed: int,
        fits: Callable[[Stage], bool],
    ) -> None:
        self._spec = spec
        self._problem = problem
        self._seed = seed
        self._settings = _training_settings(section, problem["n_train"])
        self._kernel_examples = min(section.kernel_examples, problem["n_train"])
        self._prefix_cache = section.prefix_cache
        self._linearization = section.linearization
        self._fits = fits

    def stages(self, layer_set: LayerSet, lambdas: Sequence[float], inputs: Inputs) -> tuple[Stage, Stage, Stage]:
        """Return the stages that train the model and its linearization, and the one that compares them.

        Args:
            layer_set: the layer set to train.
            lambdas: of the cells that are trained side by side, as the spec gives them.
            inputs: dataset, head if one is fitted, and the captures of both splits.
        """
        shared = {
            "problem": dict(self._problem),
            "groups": list(layer_set.groups),
            "lambdas": list(lambdas),
            "lambda_scale": self._spec.grid.lambdas.scale,
            "task_kind": self._spec.task.kind,
            "training": self._settings,
            "seed": self._seed,
        }
        frozen_layers = self._frozen_layers(layer_set) if self._prefix_cache else 0
        nonlinear = {
            "model": "nonlinear",
            "linearization": None,
            "kernel_examples": self._kernel_examples,
            "frozen_layers": frozen_layers,
        }
        beside = {"train_head": bool(self._spec.head_trained and not self._spec.head.in_kernel)}
        trained = Stage(FINETUNE, shared | nonlinear | beside, inputs)
        linearized = self._linearized(shared, frozen_layers, inputs)
        both = {"trained": (_ref(trained),), "linearized": (_ref(linearized),)}
        return trained, linearized, Stage(COMPARE, shared | beside, {**inputs, **both})

    def _linearized(self, shared: Mapping[str, Any], frozen_layers: int | None, inputs: Inputs) -> Stage:
        """Return the stage that trains the linearization: by rows where they fit, unless the spec sets the method.

        A model that is divided among processes has no products: the plan then refuses rows that do not fit.
        """
        own = {**shared, "model": "linearized", "kernel_examples": 0, "train_head": False}
        by_rows = Stage(FINETUNE, own | {"linearization": "rows", "frozen_layers": 0}, inputs)
        rows_only = self._linearization == "rows" or self._spec.is_divided
        if rows_only or (self._linearization is None and self._fits(by_rows)):
            return by_rows
        return Stage(FINETUNE, own | {"linearization": "products", "frozen_layers": frozen_layers}, inputs)

    def _frozen_layers(self, layer_set: LayerSet) -> int | None:
        """Return the number of layers below the trained ones that are computed once; None for all of them.

        A group outside the layers may precede them, as embeddings do: then no layer is known to be frozen.
        """
        outside = [group for group in layer_set.groups if group != HEAD and not group.partition(".")[0].isdigit()]
        if outside:
            return 0
        return layer_set.layers[0] if layer_set.layers else None


def _ref(stage: Stage) -> tuple[str, str]:
    return stage.kind, stage.stage_id


def _training_settings(section: FinetuneSection, n_train: int) -> dict[str, Any]:
    """Return the settings of `finetune.training`, as JSON."""
    steps = section.epochs * section.steps_per_epoch(n_train)
    own = section.model_dump(mode="json", exclude=_OF_THE_PLAN)
    return own | {
        "steps": steps,
        "warmup_steps": round(section.warmup * steps),
        "record_every": max(1, -(-steps // section.looks)),
    }
