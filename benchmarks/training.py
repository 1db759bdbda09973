"""Time that training saves by the cache and by stacked cells, and time of a linearization without its rows.

    python -m benchmarks.training [--model FOLDER] [--data FILE] [--threads 1] [--rounds 5] [--steps 6]
        [--parts cache stacked stages linearization]

MiniLM, LoRA r=8 on query and value under a random head, AdamW. Prints ratios of interleaved runs of the training loop
in one process, median and the span of the rounds:

- cache: examples a second with the cache over without, for the last layer.
- stacked: the time of 8 stacked lambdas over that of 8 runs one after the other, at batch 8, for the last
  layer with the cache and for all layers; also with every product made for each cell.
- stages: the same for all that a stage does beside its files, for the last layer: fill the cache, evaluate all examples
  on the way, follow the kernel of some.
- linearization: the last layer with the cache and all layers, by products over by rows, and over the model itself, for
  one cell and for 8.
"""

import argparse
import statistics
import time
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import torch

from benchmarks.capture import demo_model, read_texts
from finetune.data.tokens import TokenizedTexts, tokenize
from finetune.model.prefix import PrefixCache
from finetune.model.scorer import Scorer
from finetune.scorers import build_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from finetune.training import stacked
from finetune.training.kernel_change import KernelChange
from finetune.training.linearized import LinearizedModel, LinearRows
from finetune.training.linearized_products import LinearizedProducts
from finetune.training.loop import Targets, train
from finetune.training.origins import Origin
from finetune.training.settings import TrainingSettings
from finetune.training.smoothness import smoothness
from finetune.training.stacked import StackedModel
from finetune.training.trainable import Split, Trainable
from ntk_dist.jacobian.capture import jacobian_rows

CELLS = 8
KERNEL_EXAMPLES = 16
N_TRAIN = 64
N_EVAL = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of the model; MiniLM of the demo extra if left out")
    parser.add_argument("--data", type=Path, help="Parquet file with a column text; made-up texts if left out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    bench = Bench(ModelSettings(str(arguments.model or demo_model())), arguments.data, arguments.steps)
    print(
        f"{bench.texts.lengths.mean():.0f} tokens on average, {arguments.threads} threads, {arguments.rounds} rounds "
        f"of {arguments.steps} steps"
    )
    for part in arguments.parts:
        PARTS[part](bench, arguments.rounds)


def cache(bench: "Bench", rounds: int) -> None:
    for batch in (8, 32):
        pairs = [
            (bench.seconds("last", 1, batch, cached=False), bench.seconds("last", 1, batch, cached=True))
            for _ in range(rounds)
        ]
        report(f"last layer, batch {batch}: examples a second with the cache / without", pairs, "at least 2.5")


def stacked_cells(bench: "Bench", rounds: int) -> None:
    for layers in ("last", "all"):
        cached = layers == "last"
        times = []
        for _ in range(rounds):
            shared = bench.seconds(layers, CELLS, 8, cached=cached)
            with mock.patch.object(stacked, "shared_products", lambda *_: nullcontext()):
                apart = bench.seconds(layers, CELLS, 8, cached=cached)
            times.append((shared, apart, sum(bench.seconds(layers, 1, 8, cached=cached) for _ in range(CELLS))))
        what = f"{layers}, batch 8: time of {CELLS} stacked cells"
        report(f"{what} / one after the other", [(shared, alone) for shared, _, alone in times], "at most 0.5")
        report(f"{what}, every product for each cell / one after the other", [each[1:] for each in times])


def whole_stages(bench: "Bench", rounds: int) -> None:
    """Time stages as sweeps run them: with the cache filled, evaluations, and the kernel followed."""
    for epochs in (1, 10):
        pairs = [
            (bench.stage_seconds(CELLS, epochs), sum(bench.stage_seconds(1, epochs) for _ in range(CELLS)))
            for _ in range(rounds)
        ]
        report(f"last, batch 8, {epochs} epochs: time of a stage of {CELLS} cells / of {CELLS} stages", pairs)


def linearization(bench: "Bench", rounds: int) -> None:
    for layers in ("last", "all"):
        rows = bench.rows(layers)
        for cells in (1, CELLS):
            times = [bench.linearized_seconds(layers, cells, 8, rows) for _ in range(rounds)]
            what = f"{layers}, batch 8, cells {cells}: time of the linearization by products"
            report(f"{what} / by rows", [(products, by_rows) for products, by_rows, _ in times])
            report(f"{what} / of the model", [(products, model) for products, _, model in times])


PARTS = {"cache": cache, "stacked": stacked_cells, "stages": whole_stages, "linearization": linearization}


class Bench:
    """A model, its examples, and runs of the training loop on them."""

    def __init__(self, model: ModelSettings, data: Path | None, steps: int) -> None:
        self.steps = steps
        self.scorer: Scorer = build_scorer(
            model, AdapterSettings("lora", 8, 16.0, ("query", "value")), HeadSettings("random"),
            n_outputs=2, adapter_seed=0, head_seed=0,
        )  # fmt: skip
        self.texts: TokenizedTexts = tokenize(model, read_texts(data, N_TRAIN), template=None, max_length=128)
        self.eval_texts = tokenize(model, read_texts(data, N_EVAL), template=None, max_length=128)
        self.last = last = max(int(group.partition(".")[0]) for group in self.scorer.groups if group != "head")
        self.groups = {
            "last": [f"{last}.query", f"{last}.value", "head"],
            "all": list(self.scorer.groups),
        }
        self.split_texts: dict[Split, TokenizedTexts] = {"train": self.texts, "eval": self.eval_texts}
        self.caches: dict[Split, PrefixCache] = {
            split: PrefixCache(self.scorer, last, self.groups["last"]) for split in self.split_texts
        }
        self.caches["train"].fill(self.texts, batch_tokens=2048)
        self.caches["eval"].fill(self.eval_texts, batch_tokens=2048)

    def seconds(self, layers: str, cells: int, batch: int, *, cached: bool) -> float:
        """Return the time of some steps of training, without the evaluations before and after."""
        prefixes = self.caches if cached else {}
        origin = Origin(self.split_texts, prefixes=prefixes)
        model = StackedModel(self.scorer, self.groups[layers], [origin], "full", [0] * cells)
        return self._seconds(model, cells, batch)

    def stage_seconds(self, cells: int, epochs: int) -> float:
        """Return the time of what a stage does for the last layer, beside reading and writing files."""
        began = time.perf_counter()
        groups = self.groups["last"]
        caches = {split: PrefixCache(self.scorer, self.last, groups) for split in self.split_texts}
        for split, texts in self.split_texts.items():
            caches[split].fill(texts, batch_tokens=2048)
        model = StackedModel(self.scorer, groups, [Origin(self.split_texts, prefixes=caches)], "full", [0] * cells)
        trained = {group: self.scorer.trained[group] for group in groups}
        first = range(KERNEL_EXAMPLES)
        batch = self.texts.batch(first)

        def score() -> torch.Tensor:
            with caches["train"].reading(first, batch):
                return self.scorer.logits(batch)

        steps = epochs * N_TRAIN // 8
        settings = TrainingSettings("squared", "l2sp", "adamw", 1e-4, steps, 8, eval_steps=-(-steps // 10))
        targets = Targets(torch.ones(N_TRAIN, 2), torch.ones(N_EVAL, 2))
        observer = KernelChange(score, trained, trained)
        run = train(model, targets, settings, [1.0] * cells, seed=0, observer=observer)
        for cell in run.cells:
            smoothness(score, trained, cell.kept)
        return time.perf_counter() - began

    def linearized_seconds(
        self, layers: str, cells: int, batch: int, rows: dict[Split, LinearRows]
    ) -> tuple[float, float, float]:
        """Return the times of as many steps by products, by rows, and of the model; the last layer has the cache."""
        groups, cached = self.groups[layers], layers == "last"
        initial = {split: found.initial for split, found in rows.items()}
        products = LinearizedProducts(
            self.scorer, groups, self.split_texts, "full", cells, initial=initial,
            prefixes=self.caches if cached else None,
        )  # fmt: skip
        by_rows = LinearizedModel(rows, [linear for group in groups for linear in self.scorer.groups[group]], cells)
        times = [self._seconds(model, cells, batch) for model in (products, by_rows)]
        return times[0], times[1], self.seconds(layers, cells, batch, cached=cached)

    def rows(self, layers: str) -> dict[Split, LinearRows]:
        """Return the Jacobian rows of both splits, one example at a time."""
        groups = {group: self.scorer.groups[group] for group in self.groups[layers]}
        found: dict[Split, LinearRows] = {}
        for split, texts in self.split_texts.items():
            each = [
                jacobian_rows(lambda: self.scorer.logits(texts.batch([i])), groups)  # noqa: B023
                for i in range(len(texts))
            ]
            jacobian = [torch.cat([rows[group] for group in groups], dim=2) for _, rows in each]
            found[split] = LinearRows(torch.cat([scores for scores, _ in each]), torch.cat(jacobian))
        return found

    def _seconds(self, model: Trainable, cells: int, batch: int) -> float:
        settings = TrainingSettings("squared", "l2sp", "adamw", 1e-4, self.steps, batch, eval_steps=self.steps)
        timed = Timed(model)
        targets = Targets(torch.ones(len(self.texts), 2), torch.ones(N_EVAL, 2))
        train(timed, targets, settings, [1.0] * cells, seed=0)
        return timed.seconds


class Timed:
    """A model that adds up the time from the outputs of one batch of training to those of the next."""

    def __init__(self, model: Trainable) -> None:
        self._model = model
        self.displacements = model.displacements
        self.origins = model.origins
        self.seconds = 0.0
        self._began: float | None = None

    def lengths(self, split: str) -> object:
        return self._model.lengths(split)

    def outputs(self, split: str, positions: object, cells: list[int]) -> torch.Tensor:
        now = time.perf_counter()
        if self._began is not None:
            self.seconds += now - self._began
        # An evaluation on all examples has no graph.
        self._began = now if torch.is_grad_enabled() else None
        return self._model.outputs(split, positions, cells)


def report(what: str, pairs: list[tuple[float, float]], target: str = "") -> None:
    ratios = sorted(one / other for one, other in pairs)
    wanted = f"; {target}" if target else ""
    print(f"{what}: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}{wanted})", flush=True)


if __name__ == "__main__":
    main()
