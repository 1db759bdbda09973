"""A pretrained model with LoRA and a head: its groups, and the Jacobian rows of a few sentences."""

import finetune

model = finetune.ModelSettings("examples/data/minilm")
task = finetune.TaskSettings("examples/data/amazon.parquet", "classification", label="rating", sign_cut=0.5)
examples = finetune.read_examples(task)
chosen = finetune.sample(examples, n_train=4, n_eval=2, seed=0)
texts = [examples.train.texts[position] for position in chosen.train]
tokens = finetune.tokenize(model, texts, template=None, max_length=32)
scorer = finetune.build_scorer(
    model,
    finetune.AdapterSettings("lora", rank=2, lora_alpha=4.0, target_modules=("query", "value")),
    finetune.HeadSettings("random", in_kernel=False),
    n_outputs=examples.n_outputs,
    adapter_seed=0,
    head_seed=0,
)
print(f"{len(examples.train)} sentences in {examples.n_outputs} classes, {len(scorer.groups)} groups")
logits, rows = scorer.rows(
    tokens.batch(range(4)), outputs=lambda logits: finetune.kernel_outputs(logits, outputs="margin")
)
for name in ("0.query", "5.value"):
    print(f"{name}: rows {tuple(rows[name].shape)} (examples, outputs, parameters)")
