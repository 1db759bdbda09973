"""A sweep while it is planned: each kind of stage adds its own, for a seed or for all of them together."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from finetune.settings import ShardingSettings
from orchestrator.stages.base.cells import Filled
from orchestrator.stages.base.parameters import KernelDevice, ProblemParameters, RowsParameters, ScorerParameters
from orchestrator.store.artifacts import ArtifactStore
from orchestrator.store.stage import P, Stage, StageKind
from orchestrator.sweep.folder import Sweep
from orchestrator.sweep.refinements import Groups
from orchestrator.sweep.settings import adapter_settings, head_settings
from orchestrator.sweep.variant import Variant

F = TypeVar("F", bound=Filled)
T = TypeVar("T")

KEYS_OF_OTHERS = {"additions": False, "blocks": "auto", "contributions": False, "flow_times": None}
"""Keys of the section `kernel` that no regression problem depends on, as every problem has them."""


@dataclass
class Planning:
    """Everything that was planned so far.

    Attributes:
        sweep: the sweep.
        store: artifacts of its results folder, which may serve the plan; None plans as if there were none.
        variants: variants of the sweep.
        stages: all stages by identity, each after its inputs.
        variant_of: position of the first variant that needs a stage, by its identity.
        filled: stages that fill rows of tables, by their class.
        scopes: seeds of all variants.
    """

    sweep: Sweep
    store: ArtifactStore | None
    variants: list[Variant] = field(default_factory=list)
    stages: dict[str, Stage[Any]] = field(default_factory=dict)
    variant_of: dict[str, int] = field(default_factory=dict)
    filled: dict[type[Filled], list[Any]] = field(default_factory=dict)
    scopes: "list[SeedScope]" = field(default_factory=list)
    _shared: dict[Callable[["Planning"], Any], Any] = field(default_factory=dict)

    def shared(self, make: Callable[["Planning"], T]) -> T:
        """Return an object that all seeds of the plan share; the first one creates it."""
        if make not in self._shared:
            self._shared[make] = make(self)
        found: T = self._shared[make]
        return found

    def add(self, stage: Stage[Any], variant: int) -> None:
        """Add a stage that a variant needs, unless it is there."""
        self.stages.setdefault(stage.stage_id, stage)
        self.variant_of.setdefault(stage.stage_id, variant)

    def fill(self, filled: Filled) -> None:
        """Add a stage that fills rows of a table."""
        self.add(filled.stage, filled.variant)
        self.filled.setdefault(type(filled), []).append(filled)

    def filled_by(self, kind: type[F]) -> list[F]:
        """Return the stages that fill rows of one kind."""
        return self.filled.get(kind, [])


@dataclass
class SeedScope:
    """One seed of a variant while it is planned.

    Attributes:
        planning: the sweep.
        variant: the variant.
        position: its position in the sweep.
        seed: seed of the grid.
    """

    planning: Planning
    variant: Variant
    position: int
    seed: int
    _stages: dict[str, list[Stage[Any]]] = field(default_factory=dict)
    _sized: dict[tuple[str, int], Stage[Any]] = field(default_factory=dict)
    _kept: dict[Hashable, Any] = field(default_factory=dict)

    def kept(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what `make` returns, which is called once for a key."""
        if key not in self._kept:
            self._kept[key] = make()
        found: T = self._kept[key]
        return found

    @property
    def drawn_sets(self) -> tuple[int, ...]:
        """Sizes of the training sets of kernels that are drawn, ascending; other sizes are beginnings of them."""
        return self.variant.sizes.drawn_sets

    @property
    def example_sets(self) -> tuple[int, ...]:
        """The same, and the larger set that cells are trained on, if there is one."""
        return self.variant.sizes.example_sets

    def drawn_with(self, n_train: int) -> int:
        """Return the smallest drawn set that holds the first `n_train` examples."""
        return next(size for size in self.example_sets if size >= n_train)

    def add(self, stage: Stage[P], n_train: int | None = None) -> Stage[P]:
        """Add a stage, and return it.

        Args:
            stage: the stage.
            n_train: the drawn training set that it is for; None for all of them.
        """
        self._stages.setdefault(stage.kind, []).append(stage)
        if n_train is not None:
            self._sized[stage.kind, n_train] = stage
        self.planning.add(stage, self.position)
        return stage

    def stages(self, kind: StageKind[P]) -> Sequence[Stage[P]]:
        """Return the stages of a kind that were added to this seed so far."""
        return self._stages.get(kind.name, ())

    def only(self, kind: StageKind[P]) -> Stage[P] | None:
        """Return the one stage of a kind; None where there is none."""
        found = self.stages(kind)
        return found[0] if found else None

    def inputs(self, n_train: int, *kinds: StageKind[Any]) -> dict[str, tuple[tuple[str, str], ...]]:
        """Return the stage of each kind as an input in the role of its kind; kinds without a stage are left out.

        Of a kind with a stage for each drawn training set it is that of the smallest one that holds the first `n_train`
        examples: what is made from it stays when a larger one is drawn.
        """
        drawn = self.drawn_with(n_train)
        found = {kind.name: self._sized.get((kind.name, drawn)) or self.only(kind) for kind in kinds}
        return {name: (stage.ref,) for name, stage in found.items() if stage}

    @cached_property
    def scorer(self) -> ScorerParameters:
        """Everything that fixes the numbers of the model."""
        spec = self.variant.sweep.spec
        adapter_seed, head_seed = spec.adapter.seed, spec.head.seed
        return ScorerParameters(
            model=self.variant.sweep.sources.model.content_id,
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
            n_outputs=self.variant.survey.n_outputs,
            batch_tokens=spec.compute.tokens_at_once,
            batching=spec.compute.batching,
            threads=spec.compute.threads,
        )

    @cached_property
    def rows(self) -> RowsParameters:
        """Everything that fixes the Jacobian rows of an example, of all groups that some layer set has."""
        return self.rows_of(self.variant.sizes.groups)

    def rows_of(self, groups: Groups) -> RowsParameters:
        """Return everything that fixes the Jacobian rows of an example, of one of the variant's `row_sets`."""
        outputs = self.variant.sweep.spec.kernel.outputs
        return RowsParameters(self.scorer, outputs, groups, self.variant.sizes.batch_size)

    def problem(self, n_train: int, dataset: str) -> ProblemParameters:
        """Return everything that fixes a regression problem but layer set and lambda.

        Args:
            n_train: training examples.
            dataset: identity of the stage that draws them.
        """
        spec = self.variant.sweep.spec
        return ProblemParameters(
            dataset=dataset,
            task_kind=spec.task.kind,
            scorer=self.scorer,
            kernel=spec.kernel.model_copy(update=KEYS_OF_OTHERS),
            gram_dtype=spec.compute.gram_dtype,
            shard_examples=self.variant.sizes.shard_examples,
            kernel_device=KernelDevice.of(spec.compute),
            n_train=n_train,
        )


def refs(stages: Sequence[Stage[Any]]) -> tuple[tuple[str, str], ...]:
    """Return stages as inputs."""
    return tuple(stage.ref for stage in stages)
