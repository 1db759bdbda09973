"""A scorer whose model is divided among the processes of a group, and its exact Jacobian rows."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from finetune.architecture import head_linears
from finetune.model import LoadedModel, load_model
from finetune.scorer import Scorer, build_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from finetune.sharding.weights import hide_whole_parameters, loaded_in_parts, make_whole, zero_config
from ntk_dist.batches import Batch
from ntk_dist.capture import jacobian_rows
from ntk_dist.tracked import TrackedLinear


class ShardedScorer:
    """A scorer that fetches the weights of one layer at a time from all processes, and lets them go again.

    All processes make the same calls in the same order, each with examples of its own.

    Args:
        scorer: built from a model that was loaded in parts; its adapter and head become whole on every process.
        dtype: precision of the model.

    Attributes:
        scorer: the scorer, whose `groups` the rows have.
    """

    def __init__(self, scorer: Scorer, dtype: str) -> None:
        import deepspeed

        make_whole([linear.module for linears in scorer.trained.values() for linear in linears])
        hide_whole_parameters(scorer.model)
        self.scorer = scorer
        self._root = _Root(scorer)
        deepspeed.initialize(model=self._root, config=zero_config(dtype))
        self._backward = _BackwardAgain(self._root)

    @property
    def groups(self) -> dict[str, list[TrackedLinear]]:
        """See `Scorer.groups`."""
        return self.scorer.groups

    @property
    def zero_parts(self) -> dict[str, list[str]]:
        """See `Scorer.zero_parts`."""
        return self.scorer.zero_parts

    @property
    def drawn(self) -> list[str]:
        """See `Scorer.drawn`."""
        return self.scorer.drawn

    def features(self, batch: Batch) -> Tensor:
        """Return what a probe is fitted to, (B, d), as `Scorer.features`."""
        return self.scorer.features(batch, self._root)

    def logits(self, batch: Batch) -> Tensor:
        """Return the logits (B, C), as `Scorer.logits`."""
        logits: Tensor = self._root(batch)
        return logits

    def before_backward(self, output: int) -> None:
        """Make ready for the backward pass of an output, as `ntk_dist.capture.jacobian_rows` asks."""
        self._backward.prepare(output)

    def rows(self, batch: Batch, outputs: Callable[[Tensor], Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return scores (B, R) and Jacobian rows (B, R, p_g) by group, as `ntk_dist.capture.jacobian_rows`.

        Args:
            batch: the examples of this process.
            outputs: what is taken of the logits (B, C): the R outputs of the kernel.
        """
        return jacobian_rows(
            lambda: outputs(self.logits(batch)), self.scorer.groups, before_backward=self.before_backward
        )


def build_sharded_scorer(
    model: ModelSettings, adapter: AdapterSettings, head: HeadSettings, **options: Any
) -> ShardedScorer:
    """Build a scorer as `build_scorer` does, with a model that no process holds whole at any time.

    Args:
        model: the pretrained model.
        adapter: what is adapted.
        head: what gives the outputs.
        options: all that `build_scorer` takes by name.

    Raises:
        FinetuneError: as `build_scorer`.
    """
    return ShardedScorer(build_scorer(model, adapter, head, load=_load_in_parts, **options), model.dtype)


def _load_in_parts(settings: ModelSettings, *, n_outputs: int, language_model: bool, seed: int) -> LoadedModel:
    """Load a model in parts, except for its head and for what the checkpoint lacks, which are drawn as a whole."""
    with loaded_in_parts(settings.dtype):
        loaded = load_model(settings, n_outputs=n_outputs, language_model=language_model, seed=seed)
    lacking = [loaded.model.get_submodule(name.rpartition(".")[0]) for name in sorted(loaded.missing)]
    make_whole([*head_linears(loaded.model).values(), *lacking])
    return loaded


class _Root(nn.Module):
    """What DeepSpeed takes for the model: one call of it is one pass, wherever the scorer reads the model."""

    def __init__(self, scorer: Scorer) -> None:
        super().__init__()
        self.model = scorer.model
        self._scorer = scorer

    def forward(self, batch: Batch) -> Tensor:
        return self._scorer.logits(batch)


class _BackwardAgain:
    """Lets a graph be run backward once for each output.

    DeepSpeed counts the passes through a module that are still to come back, fetches its weights for as many, and lets
    them go after the last. Before every further backward pass the counts are set to what the forward pass left.
    """

    _COUNTS = ("applied_pre_backward_ref_cnt", "ds_grads_remaining")

    def __init__(self, root: nn.Module) -> None:
        self._root = root
        self._counts: list[tuple[nn.Module, dict[str, int]]] = []

    def prepare(self, output: int) -> None:
        """Make ready for the backward pass of an output, counted from 0."""
        if output == 0:
            self._counts = [
                (module, {name: vars(module)[name] for name in self._COUNTS if name in vars(module)})
                for module in self._root.modules()
            ]
            return
        for module, counts in self._counts:
            vars(module).update(counts)
