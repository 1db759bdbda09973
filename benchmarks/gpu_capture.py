"""Capture of Llama-style models with random weights on a device, against passes that form no rows."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from transformers import LlamaConfig

from benchmarks.device_timing import GIGA, Timing, timed, together
from finetune.errors import ProcessGroupError
from finetune.model.architecture import base_prefix, find_layers, linears
from finetune.model.scorer import Scorer
from finetune.parallel.processes import in_a_group
from finetune.scorers import build_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings, ShardingSettings
from finetune.zero.scorer import ShardedScorer
from ntk_dist.jacobian.batches import Batch
from ntk_dist.jacobian.capture import jacobian_rows

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
HEAD = HeadSettings("random", in_kernel=False)
LLAMA_3_1_ROPE = {
    "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip


@dataclass(frozen=True)
class Model:
    """A shape of Llama's, and how it is fed."""

    name: str
    hidden: int
    layers: int
    heads: int
    key_heads: int
    intermediate: int
    vocabulary: int
    factor: float
    examples: int
    tokens: int

    def config(self) -> LlamaConfig:
        return LlamaConfig(
            vocab_size=self.vocabulary, hidden_size=self.hidden, num_hidden_layers=self.layers,
            num_attention_heads=self.heads, num_key_value_heads=self.key_heads, intermediate_size=self.intermediate,
            max_position_embeddings=131_072, rms_norm_eps=1e-5, pad_token_id=None,
            rope_parameters=LLAMA_3_1_ROPE | {"factor": self.factor},
        )  # fmt: skip

    def batch(self) -> Batch:
        drawn = torch.Generator().manual_seed(0)
        ids = torch.randint(0, self.vocabulary, (self.examples, self.tokens), generator=drawn)
        return Batch(ids, torch.ones_like(ids))


MODELS = (
    Model("Llama-3.2-1B", 2048, 16, 32, 8, 8192, 128_256, 32.0, examples=16, tokens=512),
    Model("Llama-3.1-8B", 4096, 32, 32, 8, 14_336, 128_256, 8.0, examples=8, tokens=512),
)
SMALL = (Model("tiny Llama", 32, 3, 4, 2, 64, 97, 8.0, examples=3, tokens=16),)


@dataclass(frozen=True)
class Pass:
    """One way through a model; `failed` says why it gave no time."""

    model: str
    name: str
    target: str
    timing: Timing | None = None
    examples_per_second: float | None = None
    utilization: float | None = None
    of_plain: float | None = None
    failed: str | None = None


def build(model: Model, device: torch.device, rank: int, n_outputs: int) -> Scorer:
    """The weights are drawn where they stay: on a GPU none of them passes through the processor."""
    with described_by(model, device) as settings:
        return build_scorer(settings, adapter(rank), HEAD, **drawn(n_outputs))


def build_sharded(model: Model, device: torch.device, rank: int, n_outputs: int) -> Scorer:
    """The weights lie on the host, from where DeepSpeed fetches those of one layer at a time."""
    in_a_group()
    with described_by(model, device) as settings:
        sharding = ShardingSettings(group_size=1, offload="cpu")
        return build_scorer(settings, adapter(rank), HEAD, sharding=sharding, **drawn(n_outputs))


@contextmanager
def described_by(model: Model, device: torch.device) -> Iterator[ModelSettings]:
    with tempfile.TemporaryDirectory() as folder:
        model.config().save_pretrained(folder)
        yield ModelSettings(folder, dtype="bfloat16", weights="random", device=device.type)  # type: ignore[arg-type]


def adapter(rank: int) -> AdapterSettings:
    return AdapterSettings("lora", rank, 2.0 * rank, TARGETS)


def drawn(n_outputs: int) -> dict[str, int]:
    return {"n_outputs": n_outputs, "adapter_seed": 0, "head_seed": 0}


@dataclass(frozen=True)
class Work:
    """Operations of every pass through a model, and the speed that the device could reach.

    Attributes:
        model: name of the model.
        examples: in a batch.
        flops: of a batch, see `benchmarks.gpu`.
        peak_flops: of the device, a second.
        plain: seconds of the plain passes.
    """

    model: str
    examples: int
    flops: int
    peak_flops: float
    plain: float

    def done(self, name: str, target: str, timing: Timing) -> Pass:
        seconds = timing.median
        speed, utilization = self.examples / seconds, self.flops / seconds / self.peak_flops
        return Pass(self.model, name, target, timing, speed, utilization, self.plain / seconds)


def measured(model: Model, device: torch.device, *, repeats: int, peak_flops: float, n_outputs: int = 1) -> list[Pass]:
    speed_target = "at least 0.9 of plain" + (", utilization at least 50 %" if "8B" in model.name else "")
    try:
        work, passes = measured_whole(model, device, speed_target, repeats, peak_flops, n_outputs)
    except RuntimeError as error:
        return [Pass(model.name, "capture", speed_target, failed=reason(error))]
    if find_spec("deepspeed") is not None:
        passes.append(measured_sharded(model, work, device, repeats, n_outputs))
    return passes


def measured_sharded(model: Model, work: Work, device: torch.device, repeats: int, n_outputs: int) -> Pass:
    """Measure capture through DeepSpeed; whatever keeps it from running costs no other pass."""
    name = "capture, weights fetched from the host by DeepSpeed"
    try:
        sharded, batch = build_sharded(model, device, 8, n_outputs), model.batch().to(device)
    except (RuntimeError, ProcessGroupError) as error:
        return Pass(work.model, name, "", failed=reason(error))
    found = timed_or_failed(work, name, partial(sharded.rows, batch, lambda logits: logits), device, repeats)
    del sharded
    ShardedScorer.free_dropped()
    return found


def measured_whole(
    model: Model, device: torch.device, speed_target: str, repeats: int, peak_flops: float, n_outputs: int
) -> tuple[Work, list[Pass]]:
    """Measure passes through a model that is whole on the device, and freed at the end."""
    scorer, batch = build(model, device, 8, n_outputs), model.batch().to(device)
    ways: list[tuple[str, str, Callable[[], object]]] = [
        ("forward and activation backward, no rows", "", partial(plain, scorer, batch)),
        ("capture", speed_target, partial(capture, scorer, batch)),
        ("capture, rows brought to the host", "", partial(scorer.rows, batch, lambda logits: logits)),
        ("capture, layers run again", "", partial(capture_again, scorer, batch)),
    ]
    timings = together([run for *_, run in ways], device, repeats=repeats)
    flops = 2 * multiplied(scorer) * batch.input_ids.numel() * (1 + n_outputs)
    work = Work(model.name, len(batch), flops, peak_flops, timings[0].median)
    passes = [work.done(name, target, timing) for (name, target, _), timing in zip(ways, timings, strict=True)]
    name = "vmap(grad) of the same rows"
    return work, [*passes, timed_or_failed(work, name, partial(by_vmap, scorer, batch), device, repeats)]


def timed_or_failed(work: Work, name: str, run: Callable[[], object], device: torch.device, repeats: int) -> Pass:
    """Time what may need more memory than there is."""
    try:
        return work.done(name, "", timed(run, device, repeats=min(repeats, 3)))
    except RuntimeError as error:
        return Pass(work.model, name, "", failed=reason(error))


def multiplied(scorer: Scorer) -> int:
    """Weights of linear modules below the head: what each token is multiplied by. Embeddings are looked up."""
    prefix = base_prefix(scorer.model)
    return sum(
        module.weight.numel()
        for name, module in linears(scorer.model).items()
        if name.startswith(prefix) and "lora_" not in name
    )


def plain(scorer: Scorer, batch: Batch) -> None:
    """One forward, and a backward of activations alone for each output, down to the embeddings."""
    entered: list[Tensor] = []

    def enter(_module: object, _args: object, output: Tensor) -> Tensor:
        entered.append(output.detach().requires_grad_())
        return entered[0]

    handle = scorer.model.get_input_embeddings().register_forward_hook(enter)
    try:
        logits = scorer.logits(batch)
    finally:
        handle.remove()
    last = logits.shape[1] - 1
    for output in range(last + 1):
        torch.autograd.grad(logits[:, output].sum(), entered, retain_graph=output < last)


def capture(scorer: Scorer, batch: Batch) -> None:
    jacobian_rows(lambda: scorer.logits(batch), scorer.groups)


def capture_again(scorer: Scorer, batch: Batch) -> None:
    jacobian_rows(lambda: scorer.logits(batch), scorer.groups, layers=list(find_layers(scorer.model)))


def by_vmap(scorer: Scorer, batch: Batch) -> list[dict[str, Tensor]]:
    """For each output the rows of LoRA's B, through functional transforms, which take masks of four axes alone."""
    base, n_tokens = scorer.model.base_model, batch.input_ids.shape[1]
    weights = {name: weight for name, weight in base.named_parameters() if "lora_B" in name}
    dtype, device = scorer.final.weight.dtype, scorer.device
    hidden_from = torch.ones(n_tokens, n_tokens, dtype=torch.bool, device=device).triu(1)
    mask = torch.zeros(1, 1, n_tokens, n_tokens, dtype=dtype, device=device)
    mask = mask.masked_fill(hidden_from, torch.finfo(dtype).min)

    def logit(parameters: dict[str, Tensor], ids: Tensor, output: int) -> Tensor:
        inputs = {"input_ids": ids[None], "attention_mask": mask, "use_cache": False}
        hidden = functional_call(base, parameters, kwargs=inputs).last_hidden_state
        return scorer.final(hidden[0, -1])[output]

    return [
        vmap(grad(partial(logit, output=output)), in_dims=(None, 0))(weights, batch.input_ids)
        for output in range(scorer.final.out_features)
    ]


def reason(error: Exception) -> str:
    said = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {said[0][:160]}"


def table(passes: list[Pass]) -> list[str]:
    lines = [
        "| model | pass | examples / s | ms a batch | utilization | peak memory, GB | speed / plain | target |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for each in passes:
        if each.timing is None:
            lines.append(f"| {each.model} | {each.name} | failed: {each.failed} | | | | | {each.target} |")
            continue
        memory = "" if each.timing.peak_bytes is None else f"{each.timing.peak_bytes / GIGA:.2f}"
        lines.append(
            f"| {each.model} | {each.name} | {each.examples_per_second:.2f} | {1e3 * each.timing.median:.2f} | "
            f"{each.utilization:.1%} | {memory} | {each.of_plain:.3f} | {each.target} |"
        )
    return lines
