"""Cost of a grid of many cells beside the mathematics: planning, recognizing as finished, status, loading its table.

    python benchmarks/bookkeeping.py [--cells 25000 50000 100000 200000]

Each grid has 298 layer sets of a model with 12 layers, 48 lambdas, and as many seeds as it takes. The artifacts of a
finished sweep are made up and published through the store, its journal holds at least 30,000 events; the commands that
are timed are the real ones, each in a process of its own, imports included. Limits for 100,000 cells: 10 s to plan, 5 s
to recognize, 2 s for the status, 1 s to load.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from transformers import AutoTokenizer, BertConfig, BertModel, BertTokenizerFast

from ntk_dist.solvers.tridiagonal import TridiagonalDecomposition
from orchestrator.engine.run import resolve
from orchestrator.engine.worker.execute import provenance
from orchestrator.plan.index import keep_plan
from orchestrator.plan.plan import Plan, make_plan
from orchestrator.results.tables.write import collect
from orchestrator.spec import read_spec
from orchestrator.stages.solve.columns import SPECTRUM_COLUMNS
from orchestrator.stages.solve.scalars import packed
from orchestrator.store.artifacts import layout_of
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.survey import keep_surveys, surveys

LAMBDAS = 48
LAYER_SETS = 298
ROWS = 16
N_EVAL = 8
EVENTS = 30_000


def write_inputs(folder: Path) -> None:
    """Write a model with 12 layers that is as small as can be, and some sentences."""
    (folder / "vocabulary.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad"]))
    BertTokenizerFast(str(folder / "vocabulary.txt")).save_pretrained(folder / "model")
    config = BertConfig(
        vocab_size=7, hidden_size=8, num_hidden_layers=12, num_attention_heads=1, intermediate_size=8,
        max_position_embeddings=32,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(folder / "model")
    texts = ["good bad good", "bad", "good good"] * 40
    pq.write_table(pa.table({"text": texts, "label": [0, 1, 1] * 40}), folder / "data.parquet")


def write_spec(folder: Path, cells: int) -> Path:
    """Write a spec of about `cells` cells; return its path."""
    seeds = round(cells / (LAYER_SETS * LAMBDAS))
    spec = {
        "name": f"cells-{cells}",
        "model": {"path": "model"},
        "task": {"data": "data.parquet", "kind": "classification", "n_eval": N_EVAL},
        "adapter": {"target_modules": ["query", "value"]},
        "kernel": {"outputs": "margin"},
        "grid": {
            "lambdas": {"logspace": {"start": 1e-6, "stop": 1.0, "count": LAMBDAS}, "scale": "trace"},
            "layer_sets": [{"subsets": 3}],
            "seeds": list(range(seeds)),
            "n_train": [ROWS],
        },
        "results": {"folder": str(folder / f"results-{cells}")},
    }
    path = folder / f"cells-{cells}.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def publish_made_up(path: Path) -> Plan:
    """Publish an artifact for every stage of a spec, so that its sweep is finished; return its plan."""
    spec = read_spec(path)
    folder = ResultsFolder(spec.folder)
    sweep = resolve(spec, path.parent, folder)
    store = folder.artifacts()
    found = surveys(sweep, store)
    plan = make_plan(sweep, found)
    folder.write(sweep)
    keep_surveys(sweep, found, store)
    keep_plan(plan, folder)
    write_journal(plan, folder)
    kept = TridiagonalDecomposition(np.eye(ROWS)).keep(np.ones((ROWS, 1)), [np.ones((N_EVAL, ROWS))])
    sets = {solve.stage.stage_id: len(solve.layer_sets) for solve in plan.solves}
    for stage in plan.stages:
        count = sets.get(stage.stage_id)
        if count is None and stage.kind != "dataset":
            store.publish(stage, {}, provenance(stage, 1, 0.01))
            continue
        facts: dict[str, Any] = {}
        arrays = {f"{split}.first_in_train": np.arange(ROWS) for split in ("train", "eval")}
        arrays |= {f"{split}.labels": np.arange(n) % 2 for split, n in (("train", ROWS), ("eval", N_EVAL))}
        if count is not None:
            facts, arrays = packed({column.name: np.ones(count).tolist() for column in SPECTRUM_COLUMNS})
            arrays |= {"initial": np.ones((ROWS, 1)), "eval_initial": np.ones((N_EVAL, 1))}
            arrays |= {f"{name}.{i}": array for i in range(count) for name, array in kept.arrays().items()}
        with store.new_arrays(stage, layout_of(arrays)) as file:
            file.write(arrays)
            store.publish(stage, facts, provenance(stage, 1, 0.01), file)
    collect(plan, folder)
    return plan


def write_journal(plan: Plan, folder: ResultsFolder) -> None:
    """Write two events for every stage, again and again as if stages were retried, until there are many."""
    journal = folder.journal()
    for attempt in range(1, 2 + EVENTS // (2 * len(plan.stages))):
        for stage in plan.stages:
            facts = {"kind": stage.kind, "stage": stage.stage_id}
            journal.write("started", **facts, attempt=attempt)
            journal.write("finished", **facts, seconds=0.01, peak_bytes=123_456_789)
    journal.close()


def seconds_of(*command: str) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def load_seconds(folder: Path) -> float:
    """Return the time of loading the cells table, the import of ntksweep apart."""
    code = (
        "import sys, time, orchestrator, pandas, pyarrow.dataset\n"
        "started = time.perf_counter()\n"
        "orchestrator.load(sys.argv[1]).cells.to_pandas()\n"
        "print(time.perf_counter() - started)"
    )
    command = [sys.executable, "-c", code, str(folder)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[25_000, 50_000, 100_000, 200_000])
    command = [sys.executable, "-m", "orchestrator"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_inputs(folder)
        print(f"{'cells':>8} {'stages':>7} {'plan':>7} {'recognize':>10} {'status':>7} {'load':>6}   (seconds)")
        for cells in parser.parse_args().cells:
            spec = write_spec(folder, cells)
            plan_seconds = seconds_of(*command, "plan", str(spec))
            plan = publish_made_up(spec)
            results = folder / f"results-{cells}"
            answer = subprocess.run([*command, "run", str(spec), "--json"], check=True, capture_output=True)
            if json.loads(answer.stdout)["computed"]:
                sys.exit("the finished sweep was computed again")
            row = (
                plan_seconds,
                seconds_of(*command, "run", str(spec), "--json"),
                seconds_of(*command, "status", str(results)),
                load_seconds(results),
            )
            print(
                f"{plan.n_cells:>8} {len(plan.stages):>7} {row[0]:>7.2f} {row[1]:>10.2f} {row[2]:>7.2f} {row[3]:>6.2f}"
            )
            shutil.rmtree(results)


if __name__ == "__main__":
    main()
