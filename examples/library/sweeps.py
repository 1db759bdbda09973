"""A sweep from a program: planned, run, loaded and drawn."""

import tempfile
from pathlib import Path

import ntksweep

SPEC = {
    "name": "two-layers",
    "model": {"path": "examples/data/minilm"},
    "task": {
        "data": "examples/data/amazon.parquet", "label": "rating", "kind": "classification", "sign_cut": 0.5,
        "n_eval": 20,
    },
    "adapter": {"rank": 2, "target_modules": ["query", "value"]},
    "head": {"in_kernel": False},
    "kernel": {"outputs": "margin"},
    "grid": {
        "lambdas": {"values": [0.1, 1.0], "scale": "trace"}, "layer_sets": [{"layers": [[0], [5], [0, 5]]}],
        "seeds": [0], "n_train": [40],
    },
    "compute": {"executor": "inline"},
}  # fmt: skip

with tempfile.TemporaryDirectory() as temporary:
    folder = Path(temporary)
    spec = SPEC | {"results": {"folder": folder / "two-layers"}}
    print(ntksweep.plan(spec))
    print(ntksweep.plan(spec, overrides={"grid.seeds": [0, 1]}))
    results = ntksweep.run(spec)  # shows its progress; progress=False shows nothing
    print(results.said)
    cells = results.cells.to_pandas()
    print(cells.pivot(index="layer_set", columns="lambda_given", values="eval_loss").round(2).to_string())
    drawing = results.plot.lambda_path(size="column")
    print(f"{drawing.save(folder / 'figure.pdf').name}: {drawing.picture.title}")
    print(ntksweep.load(folder / "two-layers").names)
