"""A sweep from a program: planned, run and loaded."""

import tempfile

import ntksweep

SPEC = """
name: two-layers
model: {{path: examples/data/minilm}}
task: {{data: examples/data/amazon.parquet, label: rating, kind: classification, sign_cut: 0.5, n_eval: 20}}
adapter: {{rank: 2, target_modules: [query, value]}}
head: {{in_kernel: false}}
kernel: {{outputs: margin}}
grid:
  lambdas: {{values: [0.1, 1.0], scale: trace}}
  layer_sets: [{{layers: [[0], [5], [0, 5]]}}]
  seeds: [0]
  n_train: [40]
compute: {{executor: inline}}
results: {{folder: {folder}}}
"""

with tempfile.TemporaryDirectory() as temporary:
    spec = ntksweep.parse_spec(SPEC.format(folder=f"{temporary}/two-layers"))
    plan = ntksweep.plan(spec)
    print(f"{plan.n_cells} cells, {len(plan.stages)} stages")
    ending = ntksweep.run(spec)
    print(f"{ending.report.computed} stages computed, {len(ending.report.failures)} failed")
    cells = ntksweep.load(spec.folder).cells.to_pandas()
    print(cells.pivot(index="layer_set", columns="lambda_given", values="eval_loss").round(2).to_string())
