"""How the cost of a sweep grows with examples and with layer sets: processor seconds and bytes, with fitted exponents.

    python -m benchmarks.growth [--examples 500 1000 2000 4000 8000] [--layer-sets 9 60 600] [--blocks atoms]

Each sweep runs in this process, on one thread, from the start: a BERT of random weights (12 layers of width 256, LoRA
r = 16 on query and value, so that each layer alone has more parameters than there are examples and its kernel is made
of blocks; margins of two classes, 20 lambdas), texts of 12 tokens. What is read is what stages ask the system for.
First the number of training examples grows, with nine layer sets, then that of layer sets, with the fewest examples.
An exponent of 1 is growth in proportion.
"""

import argparse
import random
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from transformers import BertConfig, BertModel, BertTokenizerFast

from benchmarks.stage_costs import Meter, Quiet
from orchestrator.engine.run import run
from orchestrator.loading import load_model_libraries
from orchestrator.spec import read_spec

LAYERS = 12
WORDS = [f"w{number}" for number in range(200)]


def write_inputs(folder: Path, examples: int) -> None:
    """Write a model of random weights, and texts of two classes whose words differ in how often they occur."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocabulary.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    BertTokenizerFast(str(folder / "vocabulary.txt")).save_pretrained(folder / "model")
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=256, num_hidden_layers=LAYERS, num_attention_heads=4,
        intermediate_size=256, max_position_embeddings=32,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder / "model")
    draw = random.Random(0)
    labels = [number % 2 for number in range(examples)]
    texts = [" ".join(draw.choices(WORDS[label * 40 :], k=10)) for label in labels]
    pq.write_table(pa.table({"text": texts, "label": labels}), folder / "data.parquet")


def layer_sets(count: int) -> list[list[int]]:
    """Return distinct sets of layers: each layer, then drawn ones."""
    draw, found = random.Random(1), {(layer,) for layer in range(min(LAYERS, count))}
    while len(found) < count:
        found.add(tuple(sorted(draw.sample(range(LAYERS), draw.randint(2, LAYERS)))))
    return [list(each) for each in sorted(found)]


def spec_of(folder: Path, n_train: int, sets: int, blocks: str) -> dict[str, Any]:
    """Return the spec of a sweep, whose results stay in a folder."""
    return {
        "name": "growth",
        "model": {"path": "model"},
        "task": {"data": "data.parquet", "kind": "classification", "n_eval": 200, "max_length": 16},
        "adapter": {"rank": 16, "target_modules": ["query", "value"]},
        "head": {"in_kernel": False},
        "kernel": {"outputs": "margin", "blocks": blocks},
        "grid": {
            "lambdas": {"logspace": {"start": 1e-4, "stop": 1e2, "count": 20}, "scale": "trace"},
            "layer_sets": [{"layers": layer_sets(sets)}],
            "seeds": [0],
            "n_train": [n_train],
        },
        "compute": {"executor": "inline", "threads": 1},
        "results": {"folder": str(folder / "results")},
    }


def measured(n_train: int, sets: int, blocks: str) -> dict[str, float]:
    """Return processor seconds by kind of stage, MB that blocks and solves have on the disk, and MB read by all."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_inputs(folder, n_train + 200)
        path = folder / "growth.yaml"
        path.write_text(yaml.safe_dump(spec_of(folder, n_train, sets, blocks)), encoding="utf-8")
        meter, spec = Meter(), read_spec(path)
        before = bytes_read()
        with meter.watching():
            run(spec, folder, Quiet())
        read = bytes_read() - before
        of_kind = {kind: sum(f.stat().st_size for f in (spec.folder / "artifacts" / kind).rglob("*") if f.is_file())
                   for kind in ("gram", "solve")}  # fmt: skip
    seconds = {f"{kind} s": meter.costs[kind].seconds for kind in ("gram", "solve", "tables", "between stages")}
    return seconds | {"gram MB": of_kind["gram"] / 1e6, "solve MB": of_kind["solve"] / 1e6, "read MB": read / 1e6}


def bytes_read() -> int:
    """Return the bytes that this process has read by calls of the system (Linux), from disks or not."""
    return int(Path("/proc/self/io").read_text(encoding="utf-8").partition("rchar:")[2].split()[0])


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Return the slope of a line through the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(np.maximum(values, 1e-9)), 1)[0])


def print_growth(title: str, sizes: Sequence[int], rows: Sequence[Mapping[str, float]]) -> None:
    """Print what each sweep took, and the exponents."""
    print(title + "".join(f"{name:>18}" for name in rows[0]))
    for size, row in zip(sizes, rows, strict=True):
        print(f"{size:>{len(title)}}" + "".join(f"{value:>18.2f}" for value in row.values()))
    slopes = (exponent(sizes, [row[name] for row in rows]) for name in rows[0])
    print(f"{'exponent':>{len(title)}}" + "".join(f"{slope:>18.2f}" for slope in slopes), "\n", flush=True)


def main() -> None:
    """Read the command line and run the sweeps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, nargs="+", default=[500, 1000, 2000, 4000, 8000])
    parser.add_argument("--layer-sets", type=int, nargs="+", default=[9, 60, 600])
    parser.add_argument("--blocks", default="auto", choices=["auto", "groups", "atoms"])
    given = parser.parse_args()
    load_model_libraries()
    measured(64, 2, given.blocks)  # libraries load what they need when they first need it
    grown = [measured(n, 9, given.blocks) for n in given.examples]
    print_growth("training examples", given.examples, grown)
    more = [measured(min(given.examples), sets, given.blocks) for sets in given.layer_sets]
    print_growth("layer sets", given.layer_sets, more)


if __name__ == "__main__":
    main()
