from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import FalconConfig, FalconForSequenceClassification

from finetune.data.tokens import TokenizedTexts, tokenize
from finetune.errors import FinetuneError, TargetError, UnsupportedModelError
from finetune.model.adapted import AdaptedModel
from finetune.model.architecture import linears
from finetune.model.prefix import PrefixCache, find_layers
from finetune.model.scorer import Scorer, UnshardedScorer
from finetune.scorers import build_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from ntk_dist.jacobian.batches import Batch, pad
from ntk_dist.jacobian.capture import jacobian_rows
from tests.single_example import reference_rows, relative_error
from tests.tiny_models import ALL_TARGETS, KINDS, save_tiny

TEXTS = ("the film was great", "a dull plot", "it was very good and the acting was not bright", "good")
LIMIT = {"float64": 1e-12, "float32": 1e-5}
N_LAYERS = 3
LOWEST = pytest.mark.parametrize("lowest", [0, 1, 2, None])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {kind: save_tiny(kind, tmp_path_factory.mktemp(kind), layers=N_LAYERS) for kind in KINDS}


def build(folder, kind, lowest, *, dtype="float64", attention="sdpa") -> Scorer:
    """Build a scorer with the head and the groups of layers from `lowest` on; the layers below are adapted too."""
    options = (
        ModelSettings(str(folder), dtype=dtype, attention=attention),
        AdapterSettings("lora", 2, 4.0, ALL_TARGETS[kind][:2], "random"),
        HeadSettings("random"),
    )
    seeds = {"n_outputs": 2, "adapter_seed": 0, "head_seed": 0}
    groups = build_scorer(*options, **seeds).groups
    first = N_LAYERS if lowest is None else lowest
    wanted = [group for group in groups if group == "head" or int(group.partition(".")[0]) >= first]
    return build_scorer(*options, **seeds, groups=wanted)


def built(folders, adapter, head, **options) -> Scorer:
    model = ModelSettings(str(folders["bert"]), dtype="float64")
    return build_scorer(model, adapter, head, n_outputs=2, adapter_seed=0, head_seed=0, **options)


def tokens_of(folder, texts=TEXTS) -> TokenizedTexts:
    return tokenize(ModelSettings(str(folder)), texts, template=None, max_length=32)


def filled(scorer: Scorer, tokens: TokenizedTexts, lowest, *, batch_tokens=24, groups=None) -> PrefixCache:
    cache = PrefixCache(scorer, lowest, groups)
    cache.fill(tokens, batch_tokens=batch_tokens)
    return cache


def bert(folders, lowest=1) -> tuple[Scorer, TokenizedTexts, PrefixCache]:
    scorer, tokens = build(folders["bert"], "bert", lowest), tokens_of(folders["bert"])
    return scorer, tokens, filled(scorer, tokens, lowest)


def read(scorer: Scorer, cache: PrefixCache, positions, batch: Batch) -> torch.Tensor:
    with torch.no_grad(), cache.reading(positions, batch):
        return scorer.logits(batch)


def padded_further(batch: Batch, extra: int) -> Batch:
    parts = (batch.input_ids, batch.attention_mask, batch.token_type_ids)
    return Batch(*(None if part is None else nn.functional.pad(part, (0, extra)) for part in parts))


# --- the same numbers


@LOWEST
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_rows_are_those_of_the_whole_model(folders, kind, dtype, lowest):
    scorer, tokens = build(folders[kind], kind, lowest, dtype=dtype), tokens_of(folders[kind])
    cache = filled(scorer, tokens, lowest)
    positions = [2, 0, 3, 1]
    batch = tokens.batch(positions)
    expected, expected_rows = jacobian_rows(lambda: scorer.logits(batch), scorer.groups)
    with cache.reading(positions, batch):
        logits, rows = jacobian_rows(lambda: scorer.logits(batch), scorer.groups)
    assert logits.dtype == expected.dtype
    assert relative_error(logits, expected) < LIMIT[dtype]
    assert rows.keys() == expected_rows.keys()
    for name, values in rows.items():
        assert values.any(), name
        assert relative_error(values, expected_rows[name]) < LIMIT[dtype], name


@LOWEST
@pytest.mark.parametrize("kind", KINDS)
def test_rows_agree_with_plain_autograd_on_one_example_at_a_time(folders, kind, lowest):
    scorer, tokens = build(folders[kind], kind, lowest, attention="eager"), tokens_of(folders[kind])
    expected = reference_rows(lambda i: scorer.logits(tokens.batch([i])), len(tokens), scorer.groups)
    cache, batch = filled(scorer, tokens, lowest), tokens.batch(range(len(tokens)))
    with cache.reading(range(len(tokens)), batch):
        _, rows = jacobian_rows(lambda: scorer.logits(batch), scorer.groups)
    for name, values in rows.items():
        assert relative_error(values, expected[name]) < 1e-10, name


@pytest.mark.parametrize("lowest", [1, None])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(folders, kind, lowest):
    scorer, tokens = build(folders[kind], kind, lowest), tokens_of(folders[kind])
    together = filled(scorer, tokens, lowest, batch_tokens=1000)
    alone = filled(scorer, tokens, lowest, batch_tokens=1)
    for position in range(len(tokens)):
        single = tokens.batch([position])
        with torch.no_grad():
            expected = scorer.logits(single)
        beside_longer = tokens.batch([position, 2])
        for cache in (together, alone):
            assert relative_error(read(scorer, cache, [position], single), expected) < 1e-12
            wide = padded_further(single, 5)
            assert relative_error(read(scorer, cache, [position], wide), expected) < 1e-12
            assert relative_error(read(scorer, cache, [position, 2], beside_longer)[:1], expected) < 1e-12


def test_examples_may_come_several_times(folders):
    scorer, tokens, cache = bert(folders)
    positions = [3, 0, 3, 3, 0, 3]
    batch = tokens.batch(positions)
    with torch.no_grad():
        expected = scorer.logits(batch)
    logits = read(scorer, cache, positions, batch)
    assert relative_error(logits, expected) < 1e-12
    assert relative_error(logits[:3], logits[3:]) < 1e-12


def test_training_with_the_cache_is_training_without(folders):
    tokens, trained = tokens_of(folders["bert"]), []
    for with_cache in (False, True):
        scorer = build(folders["bert"], "bert", 1)
        cache = filled(scorer, tokens, 1 if with_cache else 0, groups=["1.query", "head"])
        weights = [p for group in ("1.query", "head") for linear in scorer.trained[group] for p in linear.parameters]
        optimizer = torch.optim.SGD([weight.requires_grad_() for weight in weights], lr=0.1)
        for positions in ([0, 2], [1, 3], [2, 3], [0, 1]):
            batch = tokens.batch(positions)
            optimizer.zero_grad()
            with cache.reading(positions, batch):
                loss = (scorer.logits(batch) - 1).square().sum()
            # the graph outlives the context
            loss.backward()
            optimizer.step()
        trained.append([weight.detach() for weight in weights])
    for whole, cached in zip(*trained, strict=True):
        assert relative_error(cached, whole) < 1e-12


def test_layers_that_return_tuples(tmp_path):
    config = FalconConfig(
        vocab_size=23, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, num_labels=2, pad_token_id=0
    )  # fmt: skip
    model = FalconForSequenceClassification(config).double()
    scorer = UnshardedScorer(AdaptedModel(model, model.score))
    tokens = tokens_of(save_tiny("gpt2", tmp_path))
    batch = tokens.batch([0, 1, 2])
    for lowest in (1, None):
        logits = read(scorer, filled(scorer, tokens, lowest), [0, 1, 2], batch)
        assert relative_error(logits, scorer.logits(batch).detach()) < 1e-12


# --- what is not run, and what stays as it was


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_layers_do_not_run(folders, kind):
    scorer, tokens = build(folders[kind], kind, 2), tokens_of(folders[kind])
    cache, batch, calls = filled(scorer, tokens, 2), tokens.batch([0, 1]), []
    for number, layer in enumerate(find_layers(scorer.model)):
        for module in linears(layer).values():
            module.register_forward_hook(lambda *_, number=number: calls.append(number))
    read(scorer, cache, [0, 1], batch)
    assert set(calls) == {2}
    scorer.logits(batch)
    assert set(calls) == {0, 1, 2}


def test_no_layer_runs_when_only_the_head_is_trained(folders):
    scorer, tokens, cache = bert(folders, lowest=None)
    for layer in find_layers(scorer.model):
        layer.attention.register_forward_hook(lambda *_: pytest.fail("a layer was run"))
    read(scorer, cache, [0, 1], tokens.batch([0, 1]))


def test_forwards_are_as_before_even_after_an_error(folders):
    scorer, tokens, cache = bert(folders, lowest=2)
    layers, batch = find_layers(scorer.model), tokens.batch([0, 1])
    expected = scorer.logits(batch)
    own = layers[1].forward = layers[1].forward
    before = [dict(vars(layer)) for layer in layers]
    with cache.reading([0, 1], batch):
        assert [vars(layer) == values for layer, values in zip(layers, before, strict=True)] == [False, False, True]
    with pytest.raises(RuntimeError, match="inside"), cache.reading([0, 1], batch):
        raise RuntimeError("inside")
    assert [vars(layer) == values for layer, values in zip(layers, before, strict=True)] == [True] * N_LAYERS
    assert layers[1].forward is own
    assert torch.equal(scorer.logits(batch), expected)


def test_filling_leaves_no_hooks(folders):
    scorer, tokens, _ = bert(folders)
    with pytest.raises(TargetError):
        filled(scorer, tokens, 2)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in scorer.model.modules())


@LOWEST
def test_states_are_kept_without_padding(folders, lowest):
    _, tokens, cache = bert(folders, lowest)
    row = 16 * 8
    # one row more than tokens: the zeros for padding
    assert cache.n_bytes == (0 if lowest == 0 else (len(tokens.ids) + 1) * row)
    assert PrefixCache(build(folders["bert"], "bert", 1), 1).n_bytes == 0


# --- bad input


def test_a_group_below_is_an_error(folders):
    scorer, tokens = build(folders["bert"], "bert", 1), tokens_of(folders["bert"])
    for lowest in (2, None):
        with pytest.raises(TargetError, match=r"group 1\.query is adapted below"):
            filled(scorer, tokens, lowest)
    # the scorer may know more groups than are trained
    filled(scorer, tokens, 2, groups=["2.key", "head"])
    with pytest.raises(TargetError, match=r"group 1\.key is adapted below"):
        filled(scorer, tokens, 2, groups=["1.key"])
    with pytest.raises(TargetError, match=r"no group '0\.key'"):
        PrefixCache(scorer, 2, ["0.key"])


def test_a_group_below_is_found_under_a_head_of_zeros(folders):
    zeros = {"weight": np.zeros((2, 16)), "bias": np.zeros(2)}
    scorer = built(folders, AdapterSettings("lora", 2, 4.0, ("query",)), HeadSettings("ridge"), head_weights=zeros)
    assert scorer.groups["0.query"] == []
    with pytest.raises(TargetError, match=r"group 0\.query is adapted below"):
        filled(scorer, tokens_of(folders["bert"]), 1)


def test_a_group_outside_the_layers_counts_by_when_it_is_used(folders):
    scorer = built(folders, AdapterSettings("none", 1, 1.0, ("pooler.dense",)), HeadSettings("random"))
    tokens = tokens_of(folders["bert"])
    cache, batch = filled(scorer, tokens, None), tokens.batch([0, 1])
    _, expected = jacobian_rows(lambda: scorer.logits(batch), scorer.groups)
    with cache.reading([0, 1], batch):
        _, rows = jacobian_rows(lambda: scorer.logits(batch), scorer.groups)
    assert relative_error(rows["pooler.dense"], expected["pooler.dense"]) < 1e-12


@pytest.mark.parametrize("lowest", [-1, N_LAYERS])
def test_a_layer_that_does_not_exist(folders, lowest):
    with pytest.raises(TargetError, match="the layers are 0 to 2"):
        PrefixCache(build(folders["bert"], "bert", 0), lowest)


def test_a_batch_of_other_examples_is_refused(folders):
    scorer, tokens, cache = bert(folders)
    with pytest.raises(FinetuneError, match="call fill first"):
        read(scorer, PrefixCache(scorer, 1), [0], tokens.batch([0]))
    same_length = pad([tokens.batch([0]).input_ids[0].numpy() + 1], pad_id=0)
    for positions, batch in (
        ([0, 1], tokens.batch([1, 0])),
        ([0], tokens.batch([0, 0])),
        ([2], tokens.batch([0])),
        ([0], same_length),
    ):
        with pytest.raises(FinetuneError, match="holds other tokens"):
            read(scorer, cache, positions, batch)


def test_layers_that_hand_on_more_than_states_are_refused(folders):
    scorer, tokens = build(folders["bert"], "bert", 2), tokens_of(folders["bert"])
    layers, kept = find_layers(scorer.model), []
    layers[0].attention.register_forward_hook(lambda _module, _args, output: kept.append(output[0]))
    layers[2].register_forward_hook(lambda _module, _args, output: output + kept.pop() if kept else output)
    cache = PrefixCache(scorer, 2)
    with pytest.raises(UnsupportedModelError, match="hand on more than hidden states"):
        cache.fill(tokens, batch_tokens=24)
    with pytest.raises(FinetuneError, match="call fill first"):
        read(scorer, cache, [0], tokens.batch([0]))


@pytest.mark.parametrize("batch_tokens", [1, 1000])
def test_states_that_padding_changes_are_refused(folders, batch_tokens):
    # as the convolutions of ConvBERT do, which look at neighbors behind the end
    scorer, tokens = build(folders["bert"], "bert", 1), tokens_of(folders["bert"])
    first = find_layers(scorer.model)[0]
    first.attention.register_forward_hook(lambda _module, _args, output: (output[0].roll(-1, dims=1), *output[1:]))
    with pytest.raises(UnsupportedModelError, match="or padding changes these"):
        filled(scorer, tokens, 1, batch_tokens=batch_tokens)


def test_layers_that_are_not_called_are_refused(folders):
    scorer, tokens = build(folders["llama"], "llama", 2), tokens_of(folders["llama"])
    scorer.model.config.num_hidden_layers = 1
    with pytest.raises(UnsupportedModelError, match="cannot be kept"):
        filled(scorer, tokens, 2)


def test_states_of_another_layout_are_refused(folders):
    scorer, tokens = build(folders["bert"], "bert", 1), tokens_of(folders["bert"])
    first = find_layers(scorer.model)[0]
    first.register_forward_hook(lambda _module, _args, output: output.transpose(0, 1))
    find_layers(scorer.model)[1].register_forward_pre_hook(lambda _module, args: (args[0].transpose(0, 1), *args[1:]))
    with pytest.raises(UnsupportedModelError, match="hand on more than hidden states"):
        filled(scorer, tokens, 1, batch_tokens=1)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({}, "SimpleNamespace should have one list of layers, but has none"),
        ({"norms": nn.ModuleList([nn.LayerNorm(2)])}, "but has none"),
        ({name: nn.ModuleList([nn.Linear(2, 2)]) for name in ("h", "mixers")}, "but has h, mixers"),
    ],
)
def test_models_without_a_single_list_of_layers(lists, message):
    with pytest.raises(UnsupportedModelError, match=message):
        find_layers(SimpleNamespace(base_model=nn.ModuleDict(lists)))


def test_lists_inside_a_layer_are_no_layers():
    layer = nn.ModuleDict({"experts": nn.ModuleList([nn.Linear(2, 2)])})
    layers = nn.ModuleList([layer])
    assert find_layers(SimpleNamespace(base_model=nn.ModuleDict({"layers": layers}))) is layers
