"""What training saves by caching what leaves the frozen layers, and by training cells side by side.

    python -m benchmarks.training [--model FOLDER] [--data FILE] [--threads 1] [--rounds 5] [--steps 6]

MiniLM, LoRA r=8 on query and value under a random head, AdamW. Prints ratios of interleaved runs of the training loop
in one process, median and the span of the rounds: examples a second with the cache over without, for the last layer;
and the time of 8 lambdas side by side over that of 8 runs one after the other, at batch 8, for the last layer with the
cache and for all layers.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

from benchmarks.capture import demo_model, read_texts
from finetune.prefix import PrefixCache
from finetune.scorer import Scorer, build_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from finetune.tokens import TokenizedTexts, tokenize
from finetune.training.loop import Targets, train
from finetune.training.settings import TrainingSettings
from finetune.training.stacked import StackedModel

CELLS = 8
N_EVAL = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of the model; MiniLM of the demo extra if left out")
    parser.add_argument("--data", type=Path, help="Parquet file with a column text; made-up texts if left out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    bench = Bench(ModelSettings(str(arguments.model or demo_model())), arguments.data, arguments.steps)
    print(
        f"{bench.texts.lengths.mean():.0f} tokens on average, {arguments.threads} threads, {arguments.rounds} rounds "
        f"of {arguments.steps} steps"
    )
    for batch in (8, 32):
        pairs = [
            (bench.seconds("last", 1, batch, cached=False), bench.seconds("last", 1, batch, cached=True))
            for _ in range(arguments.rounds)
        ]
        report(f"last layer, batch {batch}: examples a second with the cache / without", pairs, "at least 2.5")
    for layers in ("last", "all"):
        cached = layers == "last"
        pairs = [
            (
                bench.seconds(layers, CELLS, 8, cached=cached),
                sum(bench.seconds(layers, 1, 8, cached=cached) for _ in range(CELLS)),
            )
            for _ in range(arguments.rounds)
        ]
        report(f"{layers}, batch 8: time of {CELLS} cells side by side / one after the other", pairs, "at most 0.5")


class Bench:
    """A model, its examples, and runs of the training loop on them."""

    def __init__(self, model: ModelSettings, data: Path | None, steps: int) -> None:
        self.steps = steps
        self.scorer: Scorer = build_scorer(
            model, AdapterSettings("lora", 8, 16.0, ("query", "value")), HeadSettings("random"),
            n_outputs=2, adapter_seed=0, head_seed=0,
        )  # fmt: skip
        self.texts: TokenizedTexts = tokenize(model, read_texts(data, 256), template=None, max_length=128)
        self.eval_texts = tokenize(model, read_texts(data, N_EVAL), template=None, max_length=128)
        last = max(int(group.partition(".")[0]) for group in self.scorer.groups if group != "head")
        self.groups = {
            "last": [f"{last}.query", f"{last}.value", "head"],
            "all": list(self.scorer.groups),
        }
        self.caches = {split: PrefixCache(self.scorer, last, self.groups["last"]) for split in ("train", "eval")}
        self.caches["train"].fill(self.texts, batch_tokens=2048)
        self.caches["eval"].fill(self.eval_texts, batch_tokens=2048)

    def seconds(self, layers: str, cells: int, batch: int, *, cached: bool) -> float:
        """Return the time of some steps of training, without the looks at all examples before and after."""
        texts = {"train": self.texts, "eval": self.eval_texts}
        model = StackedModel(
            self.scorer, self.groups[layers], texts, "full", cells, prefixes=self.caches if cached else None
        )
        settings = TrainingSettings("squared", "l2sp", "adamw", 1e-4, self.steps, batch, record_every=self.steps)
        timed = Timed(model)
        targets = Targets(torch.ones(len(self.texts), 2), torch.ones(N_EVAL, 2))
        train(timed, targets, settings, [1.0] * cells, seed=0)
        return timed.seconds


class Timed:
    """A model that adds up the time from the outputs of one batch of training to those of the next."""

    def __init__(self, model: StackedModel) -> None:
        self._model = model
        self.displacements = model.displacements
        self.seconds = 0.0
        self._began: float | None = None

    def lengths(self, split: str) -> object:
        return self._model.lengths(split)

    def outputs(self, split: str, positions: object, cells: list[int]) -> torch.Tensor:
        now = time.perf_counter()
        if self._began is not None:
            self.seconds += now - self._began
        # Whoever looks at all examples asks without a graph.
        self._began = now if torch.is_grad_enabled() else None
        return self._model.outputs(split, positions, cells)


def report(what: str, pairs: list[tuple[float, float]], target: str) -> None:
    ratios = sorted(one / other for one, other in pairs)
    print(f"{what}: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}; {target})", flush=True)


if __name__ == "__main__":
    main()
