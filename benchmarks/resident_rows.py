"""A sweep whose rows stay in memory beside one that stores them, and beside the same work done plainly.

    python -m benchmarks.resident_rows [--rounds 3] [--threads 1] [--small] [--blocks groups atoms]

The sweep `layers` of `benchmarks.solve_stages` with its own texts: a small Llama with random weights, LoRA on all seven
linear modules, 512 and 256 examples, 45 layer sets x 13 lambdas, inline. In turn, as many times as there are rounds:

- the sweep with `compute.rows: resident` and with `stored`, each in a folder of its own: seconds of the stages capture,
  gram and solve together, by the journal; bytes under `artifacts`; most memory of the process;
- plain: rows by `jacobian_rows` with the adapter in the model, kept in memory; float64 products of each group, added up
  a layer; the sums of the 45 layer sets, and `scipy.linalg.eigvalsh` of each.

Printed are ratios to plain as median (smallest to largest), with aims of 0.85 and, for bytes, 0.3 GB.
"""

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow.parquet as pq
import scipy.linalg
import torch
from threadpoolctl import threadpool_limits

from benchmarks.solve_stages import GRIDS, SMALL, FloatArray, Grid, Silent, spec_for, write_inputs
from finetune.data.tokens import tokenize
from finetune.scorers import build_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from ntk_dist.jacobian.batches import length_buckets
from ntk_dist.jacobian.capture import jacobian_rows
from orchestrator.engine.run import run
from orchestrator.spec import Spec
from orchestrator.store.journal import read_journals
from orchestrator.sweep.resources import peak_memory, reset_peak_memory

STAGES = ("capture", "gram", "solve")
BATCH_TOKENS = 8192


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--blocks", nargs="+", default=["groups", "atoms"])
    parser.add_argument("--small", action="store_true", help="a sweep of seconds, to see that this runs")
    chosen = parser.parse_args()
    grid = (SMALL if chosen.small else GRIDS)[0]
    ways = [("stored", "groups"), *(("resident", blocks) for blocks in chosen.blocks)]
    took: dict[str, list[float]] = {}
    with threadpool_limits(chosen.threads):
        torch.set_num_threads(chosen.threads)
        for number in range(chosen.rounds):
            plain = plainly(grid)
            for rows, blocks in ways:
                seconds, n_bytes, peak = swept(grid, chosen.threads, rows, blocks)
                took.setdefault(f"{rows}, {blocks}", []).append(sum(seconds.values()) / plain)
                listed = ", ".join(f"{kind} {seconds[kind]:.2f}" for kind in STAGES if kind in seconds)
                print(
                    f"{number}: {rows}, {blocks}: {listed} s; plain {plain:.2f} s; {n_bytes / 1e9:.3f} GB written; "
                    f"at most {peak / 1e9:.2f} GB in memory",
                    flush=True,
                )
    for way, ratios in took.items():
        print(f"{way}: stages / plain {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def swept(grid: Grid, threads: int, rows: str, blocks: str) -> tuple[Counter[str], int, int]:
    """Return the seconds of each kind of stage of a whole sweep, its bytes, and the most memory of this process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder, grid)
        tree = spec_for(folder, grid, threads).model_dump(mode="json")
        tree["kernel"]["blocks"] = blocks
        tree["compute"] |= {"rows": rows, "shard_examples": None, "memory_budget": "2GB", "batch_tokens": BATCH_TOKENS}
        spec = Spec.model_validate(tree)
        reset_peak_memory()
        ending = run(spec, folder, Silent())
        if ending.report.failures:
            raise SystemExit(ending.report.failures[0].message)
        seconds: Counter[str] = Counter()
        for event in read_journals(spec.folder / "journal"):
            if event["event"] == "finished" and event["kind"] in STAGES:
                seconds[event["kind"]] += event["seconds"]
        written = sum(path.stat().st_size for path in (spec.folder / "artifacts").rglob("*") if path.is_file())
        return seconds, written, peak_memory()


def plainly(grid: Grid) -> float:
    """Return the seconds of the same work in one process, with everything in memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder, grid)
        model = ModelSettings(str(folder / "model"), weights="random")
        scorer = build_scorer(
            model, AdapterSettings("lora", 8, 16.0, grid.targets), HeadSettings("random", in_kernel=False),
            n_outputs=2, adapter_seed=0, head_seed=0,
        )  # fmt: skip
        n = grid.n_train + grid.n_eval
        texts = pq.read_table(folder / "data.parquet").column("text").to_pylist()[:n]
        begun = time.perf_counter()
        tokens = tokenize(model, texts, template=None, max_length=64)
        rows: dict[str, list[torch.Tensor]] = {}
        order: list[int] = []
        for positions in length_buckets(tokens.lengths, batch_tokens=BATCH_TOKENS, batch_size=n):
            batch = tokens.batch(positions)

            def margins(batch: object = batch) -> torch.Tensor:
                logits = scorer.logits(batch)  # type: ignore[arg-type]
                return logits[:, 1:] - logits[:, :1]

            order += [int(position) for position in positions]
            for group, values in jacobian_rows(margins, scorer.groups)[1].items():
                rows.setdefault(group, []).append(values[:, 0])
        first = np.argsort(order)
        layers: dict[str, FloatArray] = {}
        for group, values in rows.items():
            J = torch.cat(values)[first].double()
            K = (J @ J[: grid.n_train].T).numpy()
            layer = group.partition(".")[0]
            layers[layer] = layers[layer] + K if layer in layers else K
        names = sorted(layers, key=int)
        prefixes = [names[: end + 1] for end in range(1, len(names))]
        suffixes = [names[start:] for start in range(1, len(names) - 1)]
        for members in ([name] for name in names), prefixes, suffixes:
            for layer_set in members:
                scipy.linalg.eigvalsh(sum(layers[name] for name in layer_set)[: grid.n_train])
        return time.perf_counter() - begun


if __name__ == "__main__":
    main()
