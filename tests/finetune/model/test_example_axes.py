"""Models inside which examples do not stand in front, also in batches that have as many examples as tokens."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import CTRLConfig, FunnelConfig, LongformerConfig, OPTConfig, PreTrainedConfig

from finetune.model.scorer import Scorer
from finetune.scorers import build_scorer
from finetune.settings import AdapterKind, AdapterSettings, HeadSettings, ModelSettings
from ntk_dist.errors import NotRecordedError, NtkError
from ntk_dist.jacobian.batches import pad
from ntk_dist.jacobian.capture import jacobian_rows
from ntk_dist.jacobian.tracked import TrackedLinear
from tests.single_example import reference_rows, relative_error

LONGFORMER = LongformerConfig(
    vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
    attention_window=[4, 4], max_position_embeddings=40, pad_token_id=1,
)  # fmt: skip
OPT = OPTConfig(
    vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, ffn_dim=24, max_position_embeddings=40,
    word_embed_proj_dim=16,
)  # fmt: skip
FUNNEL = FunnelConfig(
    vocab_size=40, d_model=16, block_sizes=[1, 1], n_head=2, d_head=8, d_inner=24, num_decoder_layers=1
)

CTRL = CTRLConfig(vocab_size=40, n_embd=16, dff=24, n_layer=2, n_head=2, n_positions=40, pad_token_id=0)


def scorer_of(
    config: PreTrainedConfig,
    folder: Path,
    targets: tuple[str, ...],
    *,
    checkpointing: bool = False,
    adapter: AdapterSettings | None = None,
) -> Scorer:
    config.save_pretrained(folder)
    model = ModelSettings(str(folder), dtype="float64", weights="random", checkpointing=checkpointing)
    adapter = adapter or AdapterSettings("none", 1, 1.0, targets)
    return build_scorer(model, adapter, HeadSettings("random"), n_outputs=2, adapter_seed=0, head_seed=0)


@pytest.mark.parametrize("lengths", [(4, 4, 4, 4), (8, 8, 8, 8, 8, 8, 8, 8), (3, 6, 5), (7, 2)])
@pytest.mark.parametrize(
    ("config", "targets"), [(LONGFORMER, ("query", "key_global", "output.dense")), (OPT, ("q_proj", "fc1", "fc2"))]
)
def test_rows_are_those_of_each_example_alone(
    tmp_path: Path, config: PreTrainedConfig, targets: tuple[str, ...], lengths: tuple[int, ...]
):
    scorer = scorer_of(config, tmp_path, targets)
    draw = np.random.default_rng(0)
    texts = [draw.integers(5, 40, length) for length in lengths]
    scores, rows = scorer.rows(pad(texts, pad_id=1), torch.nn.Identity())
    alone: Callable[[int], torch.Tensor] = lambda i: scorer.logits(pad([texts[i]], pad_id=1))  # noqa: E731
    expected = reference_rows(alone, len(texts), scorer.groups)
    assert relative_error(scores, torch.cat([alone(i).detach() for i in range(len(texts))])) < 1e-10
    for name, values in expected.items():
        assert relative_error(rows[name], values) < 1e-9, name


@pytest.mark.parametrize(("kind", "said"), [("none", "takes part"), ("lora", "lora_B was not called")])
def test_layers_that_are_not_called_as_layers_are_no_zero(tmp_path: Path, kind: AdapterKind, said: str):
    """Funnel's layers stand in lists of lists, whose parts alone are called."""
    adapter = AdapterSettings(kind, 2, 4.0, ("q_head",))
    scorer = scorer_of(FUNNEL, tmp_path, (), checkpointing=True, adapter=adapter)
    with pytest.raises(NtkError, match=rf"q_head.*{said}.*leave it out of the targets, and compute\.checkpointing out"):
        scorer.rows(pad([np.arange(5, 11), np.arange(9, 12)], pad_id=0), torch.nn.Identity())


class ReadsAWeight(nn.Module):
    """Reads the weight of a linear module that it never calls, as some architectures do."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Linear(3, 3, bias=False, dtype=torch.float64)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs @ self.inside.weight.T


@pytest.mark.parametrize("adapted", [False, True])
def test_a_module_that_is_never_called_is_refused_by_name(adapted: bool):
    model = ReadsAWeight().requires_grad_(False)
    beside = nn.Linear(3, 2, dtype=torch.float64).requires_grad_(False)
    linear = TrackedLinear(beside if adapted else model.inside, "inside", adapter=adapted)
    with pytest.raises(NotRecordedError, match=r"inside .*leave it out of the targets"):
        jacobian_rows(lambda: model(torch.ones(4, 3, dtype=torch.float64)), {"group": [linear]})


@pytest.mark.parametrize("checkpointing", [False, True])
def test_layers_of_ctrl_are_right_or_refused(tmp_path: Path, checkpointing: bool):
    scorer = scorer_of(CTRL, tmp_path, ("Wq", "Wv", "dense"), checkpointing=checkpointing)
    texts = [np.arange(5, 11), np.arange(9, 12)]
    _, rows = scorer.rows(pad(texts, pad_id=0), torch.nn.Identity())
    expected = reference_rows(lambda i: scorer.logits(pad([texts[i]], pad_id=0)), 2, scorer.groups)
    assert all(relative_error(rows[name], values) < 1e-9 for name, values in expected.items())
