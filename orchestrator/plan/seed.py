"""The stages of one seed of a variant: those that its layer sets share, and those that fill their cells."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

from finetune.settings import ShardingSettings
from orchestrator.identity import identity
from orchestrator.plan.additions import AdditionsPlanner
from orchestrator.plan.parts import Solve
from orchestrator.plan.training import FinetunePlanner, TrainedCells
from orchestrator.stages.batches import BATCHES
from orchestrator.stages.batching import BATCHING
from orchestrator.stages.capture import CAPTURE, CaptureParameters
from orchestrator.stages.dataset import DATASET, DatasetParameters
from orchestrator.stages.finetune import Run
from orchestrator.stages.finetune.memory import training_memory
from orchestrator.stages.gram import GRAM, GramParameters
from orchestrator.stages.head import HEAD, HeadParameters
from orchestrator.stages.head_refits import HEAD_REFITS, HeadRefitsParameters
from orchestrator.stages.parameters import KernelDevice, ProblemParameters, RowsParameters, ScorerParameters
from orchestrator.stages.precision import PRECISION, PrecisionParameters
from orchestrator.stages.solve import SOLVE, IterativeParameters, Method, SolveParameters
from orchestrator.store.stage import Stage, as_json
from orchestrator.sweep.error_estimates import FITTED_HEADS, missing_estimates
from orchestrator.sweep.layer_sets import LayerSet
from orchestrator.sweep.settings import adapter_settings, head_settings, task_settings
from orchestrator.sweep.variant import Variant

MANY_LAYER_SETS = 1024
"""Number of layer sets beyond which one solve stage serves several, which limits the number of files."""

PRECISION_SAMPLE = 8
"""Number of first training examples whose rows in half precision are compared with those in float32."""

Ref = tuple[str, str]
Split = Literal["train", "eval"]
METHODS: tuple[Method, ...] = ("dual", "primal")


class SeedPlanner:
    """The stages of one seed of a variant."""

    def __init__(self, variant: Variant, seed: int) -> None:
        sizes = variant.sizes
        self.spec = variant.sweep.spec
        self.sweep = variant.sweep
        self.survey = variant.survey
        self.layer_sets = variant.layer_sets
        self.sizes = sizes
        self.seed = seed
        self.scorer = self._scorer()
        self.rows = RowsParameters(
            scorer=self.scorer,
            outputs=self.spec.kernel.outputs,
            groups=sizes.groups,
            batch_examples=sizes.batch_examples,
        )
        self.dataset = self._dataset()
        self.batches = self._batches()
        self.head = self._head()
        self.head_refits = self._head_refits()
        self.batching = Stage(BATCHING, self.rows, self._model_inputs())
        self.batching_trained = self._batching_trained()
        self.precision = self._precision()
        self.train = self._captures("train", sizes.train_shards)
        self.eval = self._captures("eval", sizes.eval_shards)
        self.tiles, self.eval_tiles = self._tiles()

    def shared_stages(self) -> Iterator[Stage]:
        """Yield the stages that several layer sets need."""
        yield self.dataset
        yield from [
            stage for stage in (self.batches, self.head, self.head_refits, self.batching, self.precision) if stage
        ]
        if self.batching_trained not in (None, self.batching):
            yield self.batching_trained
        yield from [*self.train, *self.eval]
        yield from [*self.tiles.values(), *self.eval_tiles.values()]

    def solves(self) -> Iterator[Solve]:
        """Yield the stages that fill cells: for each training-set size, all layer sets."""
        batch = -(-len(self.layer_sets) // MANY_LAYER_SETS)
        for n_train in dict.fromkeys(self.spec.grid.n_train):
            problem = self._problem(n_train)
            problem_id = identity(as_json(problem))
            for method in METHODS:
                chosen = [s for s in self.layer_sets if self.sizes.method(s, n_train) == method]
                inputs = self._solve_inputs(method, n_train) if chosen else {}
                for start in range(0, len(chosen), batch):
                    part = tuple(chosen[start : start + batch])
                    stage = Stage(SOLVE, self._solve_parameters(problem, method, part), inputs)
                    yield Solve(stage, self.seed, n_train, part, problem_id)

    def trained(self, solve: Solve, variant: int, number: int) -> Iterator[TrainedCells]:
        """Yield, for each layer set of a solve stage, the training of its cells, those together that share a model.

        Args:
            solve: the solve stage.
            variant: position of the variant.
            number: position of the solve stage among those of the plan.
        """
        section = self.spec.finetune
        if section is None:
            return
        lambdas = self.spec.grid.lambdas.numbers()
        planner = FinetunePlanner(self.spec, section, self._problem(solve.n_train), self.seed, self._fits)
        inputs = self._training_inputs(solve.n_train)
        for position, layer_set in enumerate(solve.layer_sets):
            for first in range(0, len(lambdas), section.side_by_side):
                together = lambdas[first : first + section.side_by_side]
                training = planner.training(layer_set, together, inputs)
                groups, count = layer_set.groups, len(together)
                yield TrainedCells(variant, number, self.seed, solve.n_train, position, groups, first, count, training)

    def _fits(self, run: Run) -> bool:
        return training_memory(self.sizes, self.survey, run) <= self.spec.compute.memory_budget

    def _training_inputs(self, n_train: int) -> dict[str, tuple[Ref, ...]]:
        shards = self.sizes.shards_of(n_train)
        return {
            **self._model_inputs(),
            **_by_kind(self.batching_trained),
            "train": tuple(_ref(stage) for stage in self.train[:shards]),
            "eval": tuple(_ref(stage) for stage in self.eval),
        }

    def _dataset(self) -> Stage:
        spec, task, sources = self.spec, self.spec.task, self.sweep.sources
        return Stage(DATASET, DatasetParameters(
            tokenizer=sources.model.content_id,
            task=task_settings(task, sources.data.content_id, None),
            n_outputs=self.survey.n_outputs,
            classes=task.classes,
            n_train=max(spec.grid.n_train),
            n_eval=task.n_eval,
            sampling=task.sampling,
            seed=self.seed if task.sample_seed is None else task.sample_seed,
        ))  # fmt: skip

    def _scorer(self) -> ScorerParameters:
        """Return the parameters that fix the numbers of the model."""
        spec = self.spec
        adapter_seed, head_seed = spec.adapter.seed, spec.head.seed
        return ScorerParameters(
            model=self.sweep.sources.model.content_id,
            weights_seed=spec.model.weights_seed if spec.model.weights == "random" else None,
            dtype=spec.model.dtype,
            row_dtype=spec.row_dtype,
            device=spec.compute.device,
            sharding=ShardingSettings(**spec.sharding.model_dump()) if spec.sharding else None,
            attention=spec.model.attention,
            adapter=adapter_settings(spec.adapter),
            adapter_seed=self.seed if adapter_seed is None else adapter_seed,
            head=head_settings(spec.head),
            head_seed=self.seed if head_seed is None else head_seed,
            n_outputs=self.survey.n_outputs,
            batch_tokens=spec.compute.tokens_at_once,
            batching=spec.compute.batching,
            threads=spec.compute.threads,
        )

    def _model_inputs(self) -> dict[str, tuple[Ref, ...]]:
        return _by_kind(self.dataset, self.batches, self.head)

    def _batches(self) -> Stage | None:
        """Return the stage that finds the most tokens of a batch; None where the spec sets them."""
        if self.spec.compute.tokens_at_once != "auto":
            return None
        # Memory is not a parameter: a batch size that was found once stays, even if the memory changes later.
        return Stage(BATCHES, self.rows, _by_kind(self.dataset))

    def _head(self) -> Stage | None:
        if self.spec.head.kind not in FITTED_HEADS:
            return None
        # Only `kernel.outputs: margin` changes the targets of a ridge probe, and nothing those of a logistic one.
        outputs = self.spec.kernel.outputs
        aims: Literal["margin", "full"] = "margin" if self.spec.head.kind == "ridge" and outputs == "margin" else "full"
        return Stage(HEAD, HeadParameters(self.scorer, aims), _by_kind(self.dataset, self.batches))

    def _head_refits(self) -> Stage | None:
        """Return the stage that fits a logistic head again without each example; None where nothing needs that."""
        head = self.spec.head
        if head.kind != "logistic" or "leave_one_out_loss" in missing_estimates(head.kind, self.spec.kernel):
            return None
        return Stage(HEAD_REFITS, HeadRefitsParameters(head.penalty), _by_kind(self.dataset, self.head))

    def _left_out(self) -> Stage | None:
        """Return the stage with the changes of the initial outputs without one example; None if there is none."""
        if self.head is None or len(missing_estimates(self.spec.head.kind, self.spec.kernel)) == 2:
            return None
        return self.head if self.spec.head.kind == "ridge" else self.head_refits

    def _batching_trained(self) -> Stage | None:
        """Return the trial of training batches, which mix examples of any length; None where nothing is trained."""
        if self.spec.finetune is None:
            return None
        rows, tokens = self.rows, self.scorer.batch_tokens
        if self.scorer.batching == "together" and tokens != "auto":
            scorer = replace(self.scorer, batch_tokens=max(tokens, 2 * self.spec.task.max_length))
            rows = replace(rows, scorer=scorer, batch_examples=max(rows.batch_examples, 2))
        return Stage(BATCHING, rows, self._model_inputs())

    def _precision(self) -> Stage | None:
        """Return the stage that measures the errors from half precision; None where the model is not in it."""
        if self.spec.model.dtype not in ("bfloat16", "float16"):
            return None
        parameters = PrecisionParameters(self.rows, min(PRECISION_SAMPLE, self.sizes.n_train))
        return Stage(PRECISION, parameters, self._model_inputs())

    def _captures(self, split: Split, shards: Sequence[tuple[int, int]]) -> list[Stage[CaptureParameters]]:
        inputs = self._model_inputs() | _by_kind(self.batching)
        return [Stage(CAPTURE, CaptureParameters(self.rows, split, start, stop), inputs) for start, stop in shards]

    def _tiles(self) -> tuple[dict[tuple[int, int], Stage], dict[tuple[int, int], Stage]]:
        """Return the stages of tiles that some layer set needs, by the positions of their shards."""

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
        parameters = GramParameters(
            kind=kernel.kind,
            outputs_per_example=self.survey.n_outputs if kernel.outputs == "trace" else 1,
            gram_dtype=self.spec.compute.gram_dtype,
            threads=self.spec.compute.threads,
            groups=tuple(groups),
            kernel_device=KernelDevice.of(self.spec.compute),
        )
        return Stage(GRAM, parameters, {"left": (_ref(left),), "right": (_ref(right),)})

    def adding(self) -> AdditionsPlanner:
        """Return the planner of the additions of the seed."""
        return AdditionsPlanner(
            spec=self.spec,
            sizes=self.sizes,
            layer_sets=self.layer_sets,
            groups=self.survey.groups,
            shards=self.train,
            tiles=self.tiles,
            make_tile=self._tile,
        )

    def _problem(self, n_train: int) -> ProblemParameters:
        return ProblemParameters(
            dataset=self.dataset.stage_id,
            task_kind=self.spec.task.kind,
            scorer=self.scorer,
            kernel=self.spec.kernel.model_copy(update={"additions": False}),
            gram_dtype=self.spec.compute.gram_dtype,
            shard_examples=self.sizes.shard_examples,
            kernel_device=KernelDevice.of(self.spec.compute),
            n_train=n_train,
        )

    def _solve_inputs(self, method: Method, n_train: int) -> dict[str, tuple[Ref, ...]]:
        shards = self.sizes.shards_of(n_train)
        inputs = {
            "dataset": (_ref(self.dataset),),
            "train": tuple(_ref(stage) for stage in self.train[:shards]),
            "eval": tuple(_ref(stage) for stage in self.eval),
        }
        if self.precision:
            inputs["precision"] = (_ref(self.precision),)
        left_out = self._left_out()
        if left_out and (method == "primal" or self.spec.kernel.decomposition == "full"):
            inputs["left_out"] = (_ref(left_out),)
        if method == "dual":
            inputs["tiles"] = tuple(_ref(t) for (row, column), t in self.tiles.items() if max(row, column) < shards)
            inputs["eval_tiles"] = tuple(_ref(t) for (_, column), t in self.eval_tiles.items() if column < shards)
        return inputs

    def _solve_parameters(
        self, problem: ProblemParameters, method: Method, layer_sets: Sequence[LayerSet]
    ) -> SolveParameters:
        lambdas, iterative = self.spec.grid.lambdas, None
        if method == "dual" and self.spec.kernel.decomposition == "iterative":
            iterative = IterativeParameters(min(lambdas.numbers()), lambdas.scale, self.seed)
        return SolveParameters(problem, method, tuple(each.groups for each in layer_sets), iterative)


def _ref(stage: Stage) -> Ref:
    return stage.kind, stage.stage_id


def _by_kind(*stages: Stage | None) -> dict[str, tuple[Ref, ...]]:
    """Return stages as inputs, each in the role of its kind; None is left out."""
    return {stage.kind: (_ref(stage),) for stage in stages if stage}
