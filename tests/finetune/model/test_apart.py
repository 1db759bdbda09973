"""An example's numbers do not depend on its batch, or the model is refused, or each example goes alone."""

import copy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    BertPreTrainedModel,
    BigBirdConfig,
    ConvBertConfig,
    FNetConfig,
    GPT2Config,
    LlamaConfig,
    Phi3Config,
    PreTrainedConfig,
    YosoConfig,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from finetune.data.tokens import TokenizedTexts
from finetune.errors import BatchingError
from finetune.model.adapted import AdaptedModel
from finetune.model.batching import Found, TrialTexts, check_batching, one_score
from finetune.model.model_state import undone
from finetune.model.precision import KeepDouble
from finetune.model.prefix import PrefixCache
from finetune.model.scorer import Scorer, UnshardedScorer
from finetune.model.trials import find_example_axes
from finetune.scorers import build_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelDType, ModelSettings
from finetune.training.kernel_change import KernelChange
from finetune.training.linearized_products import LinearizedProducts
from finetune.training.origins import Origin
from finetune.training.stacked import StackedModel
from ntk_dist.jacobian.batches import Batch
from tests.single_example import reference_rows, relative_error

SMALL = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 64, "pad_token_id": 0, "initializer_range": 0.3,
}  # fmt: skip
FNET = FNetConfig(**SMALL, tpu_short_seq_length=64)
CONVBERT = ConvBertConfig(**SMALL, embedding_size=16, conv_kernel_size=3)
BIGBIRD = BigBirdConfig(**SMALL, attention_type="block_sparse", block_size=2, num_random_blocks=1)
YOSO = YosoConfig(**SMALL)
BERT = BertConfig(**SMALL)
GPT2 = GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=64, initializer_range=0.3)
LENGTHS = (5, 23, 9, 30, 5)


def texts_of(lengths: tuple[int, ...] = LENGTHS) -> TokenizedTexts:
    ids = np.random.default_rng(0).integers(7, 40, sum(lengths)).astype(np.int32)
    return TokenizedTexts(ids, np.concatenate([[0], np.cumsum(lengths)]), None, 0)


def scorer_of(
    config: PreTrainedConfig,
    folder: Path,
    *,
    alone: bool = False,
    dtype: ModelDType = "float64",
    checkpointing: bool = False,
    targets: tuple[str, ...] = ("query", "value", "intermediate.dense", "c_attn"),
) -> Scorer:
    config.save_pretrained(folder)
    model = ModelSettings(str(folder), dtype=dtype, weights="random", alone=alone, checkpointing=checkpointing)
    present = tuple(target for target in targets if (target == "c_attn") == (config.model_type == "gpt2"))
    if config.model_type == "fnet":
        present = ("intermediate.dense",)
    adapter = AdapterSettings("none", 1, 1.0, present)
    return build_scorer(model, adapter, HeadSettings("random"), n_outputs=2, adapter_seed=0, head_seed=0)


def check(scorer: Scorer, texts: TokenizedTexts, *, crowd: int = 8) -> None:
    trial = TrialTexts.of(texts, batch_tokens=2048, crowd=crowd)
    check_batching(scorer.model, partial(scorer.rows, outputs=one_score), trial, alone=scorer.alone)


def in_a_new_model(scorer: Scorer, texts: TokenizedTexts, position: int) -> Tensor:
    """Return the logits (1, C) of an example, the first that a copy of the model ever sees."""
    batch = texts.batch([position])
    return copy.deepcopy(scorer.model)(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            FNET,
            r"beside a longer one.* padding reaches .* first in fnet\.encoder\.layer\.0\.fourier\.self \(FNetBasicF",
        ),
        (CONVBERT, r"beside a longer one.* padding reaches .* first in .*key_conv_attn_layer\.depthwise \(Conv1d\)"),
        (BIGBIRD, r"keeps something .* bert\.attention_type of BigBirdModel from 'block_sparse' to 'original_full'"),
        (YOSO, r"beside a longer one.* padding reaches .* first in .*attention\.self"),
    ],
)
def test_a_model_whose_examples_share_a_batch_is_refused_by_its_mechanism(
    tmp_path: Path, config: PreTrainedConfig, said: str
):
    with pytest.raises(BatchingError, match=rf"{said}.*set compute\.batching: alone"):
        check(scorer_of(config, tmp_path), texts_of())


@pytest.mark.parametrize("config", [FNET, CONVBERT, BIGBIRD])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_alone_rows_are_those_of_a_model_that_saw_nothing_else(
    tmp_path: Path, config: PreTrainedConfig, checkpointing: bool
):
    scorer, texts = scorer_of(config, tmp_path, alone=True, checkpointing=checkpointing), texts_of()
    check(scorer, texts)
    scores, rows = scorer.rows(texts.batch(range(len(texts))), nn.Identity())
    expected = torch.cat([in_a_new_model(scorer, texts, i) for i in range(len(texts))])
    assert relative_error(scores, expected) < 1e-12
    fresh = scorer_of(config, tmp_path, alone=True)

    def plain(position: int) -> Tensor:
        batch = texts.batch([position])
        with undone(fresh.model):
            return fresh.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits

    for name, values in reference_rows(plain, len(texts), fresh.groups).items():
        assert values.norm() > 0
        assert relative_error(rows[name], values) < 1e-10, name


@pytest.mark.parametrize(("config", "cached"), [(FNET, False), (BIGBIRD, False), (CONVBERT, True), (BERT, True)])
def test_alone_holds_in_training(tmp_path: Path, config: PreTrainedConfig, cached: bool):
    """Outputs and gradients of cells, products with the Jacobian and the kernel that is followed."""
    scorer, texts = scorer_of(config, tmp_path, alone=True), texts_of()
    groups = [name for name in scorer.groups if name.startswith("1.")]
    tracked = {name: scorer.groups[name] for name in groups}
    prefixes = {}
    if cached:
        cache = PrefixCache(scorer, 1, groups)
        cache.fill(texts, batch_tokens=64)
        prefixes = {"train": cache}
    positions = np.array([3, 0, 1])
    _, rows = scorer.rows(texts.batch(positions), nn.Identity())
    jacobian = torch.cat([rows[name] for name in groups], dim=2)

    model = StackedModel(scorer, groups, [Origin({"train": texts}, prefixes=prefixes)], "full", [0, 0])
    outputs = model.outputs("train", [positions], [0, 1])
    expected = torch.cat([in_a_new_model(scorer, texts, int(i)) for i in positions])
    assert relative_error(outputs[0].detach(), expected) < 1e-12
    assert torch.equal(outputs[0], outputs[1])
    outputs[1].sum().backward()
    moved = torch.cat([tensor.grad.flatten() for tensor in model.displacements[1].values()])
    assert relative_error(moved, jacobian.sum(dim=(0, 1))) < 1e-10

    initial = {"train": torch.zeros(len(texts), 2, dtype=torch.float64)}
    products = LinearizedProducts(scorer, groups, {"train": texts}, "full", 1, initial=initial, prefixes=prefixes)
    draw = torch.Generator().manual_seed(1)
    for tensor in products.displacements[0].values():
        tensor.data.normal_(0, 1, generator=draw)
    direction = torch.cat([tensor.detach().flatten() for tensor in products.displacements[0].values()])
    assert relative_error(products.outputs("train", [positions], [0]).detach()[0], jacobian @ direction) < 1e-10

    passes = [lambda i=int(i): scorer.logits(texts.batch([i])) for i in positions]
    change = KernelChange(passes, tracked, tracked)
    assert (
        relative_error(torch.from_numpy(change._first), torch.einsum("irp,jsp->irjs", jacobian, jacobian).reshape(6, 6))
        < 1e-10
    )


@pytest.mark.parametrize("config", [BERT, GPT2])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_model_whose_examples_stay_apart_is_not_refused(tmp_path: Path, config: PreTrainedConfig, dtype: ModelDType):
    scorer = scorer_of(config, tmp_path, dtype=dtype)
    before = {name: value.clone() for name, value in scorer.model.state_dict().items()}
    check(scorer, texts_of())
    assert all(torch.equal(value, before[name]) for name, value in scorer.model.state_dict().items())


@pytest.mark.parametrize("config", [FNET, BIGBIRD])
def test_texts_of_one_length_are_not_refused(tmp_path: Path, config: PreTrainedConfig):
    """There is no padding, and no short text."""
    check(scorer_of(config, tmp_path), texts_of((20, 20, 20)))


class Odd(BertForSequenceClassification):
    """A BERT whose embeddings go through something else."""

    def __init__(self, config: BertConfig, inside: nn.Module) -> None:
        super().__init__(config)
        self.bert.embeddings.dropout = inside


class Capacity(nn.Module):
    """An expert that takes the first 25 tokens of a batch."""

    def forward(self, hidden: Tensor) -> Tensor:
        taken = torch.arange(hidden.shape[0] * hidden.shape[1]).view(hidden.shape[:2]) < 25
        return torch.where(taken[..., None], 2 * hidden, hidden)


class Between(nn.Module):
    """An expert that has no room left for texts that stand neither first nor last."""

    def forward(self, hidden: Tensor) -> Tensor:
        return torch.cat([2 * hidden[:1], hidden[1:-1], 2 * hidden[1:][-1:]])


class Chance(nn.Module):
    def forward(self, hidden: Tensor) -> Tensor:
        return hidden * (1 + 0.1 * torch.rand_like(hidden))


class Statistics(nn.Module):
    """A norm over the batch."""

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden / hidden.std()


class Memory(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("longest", torch.zeros((), dtype=torch.float64), persistent=False)
        self.seen: list[int] = []

    def forward(self, hidden: Tensor) -> Tensor:
        self.longest.copy_(torch.tensor(max(float(self.longest), hidden.shape[1])))
        self.seen.append(hidden.shape[1])
        return hidden * self.longest * len(self.seen)


@pytest.mark.parametrize(
    ("inside", "said"),
    [
        (Capacity(), r"beside a longer.* computes across the texts of a batch, first in bert\.embeddings\.dropout"),
        (Between(), r"of 6 tokens other numbers beside .* computes across the texts of a batch, first in bert\.emb"),
        (Chance(), r"each time: it draws at random, first in bert\.embeddings\.dropout \(Chance\)"),
        (
            Statistics(),
            r"one of the same length .* computes across the texts of a batch, first in bert\.embeddings\.dro",
        ),
        (Memory(), r"keeps something from one text to the next.*set compute\.batching: alone"),
    ],
)
def test_each_mechanism_has_its_name(inside: nn.Module, said: str):
    torch.manual_seed(0)
    model = Odd(BERT, inside).double().requires_grad_(False).eval()
    scorer = UnshardedScorer(AdaptedModel(model, model.classifier))
    with pytest.raises(BatchingError, match=said):
        check(scorer, texts_of((5, 23, 5, 6, 6, 6, 6)))
    alone = UnshardedScorer(AdaptedModel(model, model.classifier, alone=True))
    if isinstance(inside, Chance):
        with pytest.raises(BatchingError, match="draws at random"):
            check(alone, texts_of())
    else:
        check(alone, texts_of())


def test_chance_is_told_where_it_hides_on_which_axis_examples_stand():
    model = Odd(BERT, Chance()).double().requires_grad_(False).eval()
    with pytest.raises(BatchingError, match="gives a text other numbers each time: it draws at random"):
        find_example_axes(UnshardedScorer(AdaptedModel(model, model.classifier)))


class Mean(BertPreTrainedModel):
    """A classifier with a name of its own that reads the mean over all tokens."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config)
        self.classifier = nn.Linear(config.hidden_size, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SequenceClassifierOutput:
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        real = attention_mask[..., None]
        return SequenceClassifierOutput(logits=self.classifier((hidden * real).sum(1) / real.sum(1)))


def test_a_classifier_of_a_checkpoints_own_code_is_run_as_it_is_whatever_its_name():
    config = BertConfig(**BERT.to_diff_dict() | {"auto_map": {"AutoModelForSequenceClassification": "code.Mean"}})
    model = Mean(config).double().requires_grad_(False).eval()
    batch = texts_of((5, 9)).batch([0, 1])
    scored = UnshardedScorer(AdaptedModel(model, model.classifier)).logits(batch)
    torch.testing.assert_close(scored, model(batch.input_ids, batch.attention_mask).logits, rtol=1e-6, atol=0)


def test_the_crowd_of_a_batch_is_tried_where_no_text_is_longer():
    model = Odd(BERT, Capacity()).double().requires_grad_(False).eval()
    with pytest.raises(BatchingError, match=r"beside 6 others .* computes across the texts of a batch"):
        check(UnshardedScorer(AdaptedModel(model, model.classifier)), texts_of((6,) * 7))


LONG = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_texts_of_one_token_do_not_hide_what_attention_does(tmp_path: Path, dtype: ModelDType):
    """Angles of positions change for a whole batch with its longest text, which attention to one token never shows."""
    config = Phi3Config(**SMALL, rope_parameters=LONG, original_max_position_embeddings=8)
    scorer = scorer_of(config, tmp_path, dtype=dtype, targets=("o_proj",))
    check(scorer, texts_of((1, 1, 6, 8)))
    with pytest.raises(BatchingError, match=r"a text of 6 tokens other numbers beside a longer one.*padding reaches"):
        check(scorer, texts_of((1, 1, 6, 12)))


def test_gradients_that_cancel_are_not_compared_by_their_roundings():
    """Attention to one token does not depend on its query and key: what is computed of their gradients is rounding."""

    def rows(batch: Batch, *, size: float) -> Found:
        scores = (batch.input_ids * batch.attention_mask).double().sum(dim=1, keepdim=True)
        # of single tokens what differs with the number of texts beside them
        of_one = torch.full_like(scores, size * len(batch))
        is_one = batch.attention_mask.sum(dim=1, keepdim=True) == 1
        return scores, {"0.key": torch.where(is_one, of_one, scores)[:, None]}

    texts = TrialTexts.of(texts_of((1, 1, 1, 6, 8)), batch_tokens=64, crowd=3)
    check_batching(nn.Identity(), partial(rows, size=1e-17), texts, alone=False)
    with pytest.raises(BatchingError, match="a text of 1 tokens other numbers beside"):
        check_batching(nn.Identity(), partial(rows, size=1e-3), texts, alone=False)


class AfterLonger(nn.Module):
    """Keeps the length of the longest text, and forgets it at a very short one, as dynamic angles of positions do."""

    def __init__(self) -> None:
        super().__init__()
        self.longest = 8

    def forward(self, hidden: Tensor) -> Tensor:
        self.longest = 8 if hidden.shape[1] < 8 else max(self.longest, hidden.shape[1])
        return hidden * self.longest


def test_a_text_of_middling_length_after_the_longest_is_tried():
    model = Odd(BERT, AfterLonger()).double().requires_grad_(False).eval()
    scorer = UnshardedScorer(AdaptedModel(model, model.classifier))
    check(scorer, texts_of((5, 5, 6, 6, 6)))
    with pytest.raises(BatchingError, match=r"a text after a longer one other numbers.*keeps something"):
        check(scorer, texts_of((5, 12, 12, 20)), crowd=1)


def test_what_a_pass_changes_is_undone():
    memory = Memory()
    model = nn.Sequential(memory)
    with undone(model):
        model(torch.ones(1, 7, 2, dtype=torch.float64))
        model.new = "left over"
        model[0] = nn.Identity()
    assert (model[0] is memory, float(memory.longest), memory.seen, hasattr(model, "new")) == (True, 0.0, [], False)


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "dynamic", "factor": 4.0},
        {"rope_type": "linear", "factor": 4.0},
        {"rope_type": "yarn", "factor": 4.0},
    ],
)
def test_texts_beyond_the_length_before_scaling_have_the_rows_of_each_alone(tmp_path: Path, scaling: dict[str, object]):
    config = LlamaConfig(**SMALL | {"max_position_embeddings": 8}, rope_parameters=scaling | {"rope_theta": 1e4})
    alone = scaling["rope_type"] == "dynamic"
    texts = texts_of((5, 23, 9, 30, 5))
    scorer = scorer_of(config, tmp_path / "a", alone=alone, targets=("q_proj", "v_proj"))
    check(scorer, texts)
    _, rows = scorer.rows(texts.batch(range(len(texts))), nn.Identity())
    fresh = scorer_of(config, tmp_path / "a", alone=True, targets=("q_proj", "v_proj"))

    def plain(position: int) -> Tensor:
        batch = texts.batch([position])
        with undone(fresh.model), KeepDouble():
            hidden = fresh.model.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
            return fresh.final(hidden[:, -1])

    for name, values in reference_rows(plain, len(texts), fresh.groups).items():
        assert values.norm() > 0
        assert relative_error(rows[name], values) < 1e-10, name
    if alone:
        with pytest.raises(BatchingError, match=r"set compute\.batching: alone"):
            check(scorer_of(config, tmp_path / "a", targets=("q_proj", "v_proj")), texts)
