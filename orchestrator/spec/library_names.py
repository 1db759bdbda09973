"""Names that transformers, peft and torch have for what keys of the spec set, for messages about unknown keys."""

from collections.abc import Mapping

LIBRARY_NAMES: Mapping[str, str] = {
    # transformers: loading a model and its data
    "model_name": "model.path",
    "model_name_or_path": "model.path",
    "pretrained_model_name_or_path": "model.path",
    "torch_dtype": "model.dtype",
    "bf16": "model.dtype",
    "fp16": "model.dtype",
    "attn_implementation": "model.attention",
    "dataset": "task.data",
    "dataset_name": "task.data",
    "dataset_config_name": "task.config",
    "max_seq_length": "task.max_length",
    "model_max_length": "task.max_length",
    "num_labels": "task.classes",
    # transformers: training
    "num_train_epochs": "finetune.epochs",
    "max_steps": "finetune.epochs",
    "lr": "finetune.learning_rate",
    "optim": "finetune.optimizer",
    "per_device_train_batch_size": "finetune.batch_size",
    "per_device_eval_batch_size": "finetune.batch_size",
    "train_batch_size": "finetune.batch_size",
    "gradient_accumulation": "finetune.gradient_accumulation_steps",
    "lr_scheduler": "finetune.lr_scheduler_type",
    "scheduler": "finetune.lr_scheduler_type",
    "warmup_steps": "finetune.warmup_ratio",
    "gradient_clipping": "finetune.max_grad_norm",
    "eval_steps": "finetune.num_evaluations",
    "eval_strategy": "finetune.num_evaluations",
    "logging_steps": "finetune.num_evaluations",
    "patience": "finetune.early_stopping_patience",
    "weight_decay": "grid.lambdas",
    # transformers and DeepSpeed: how it runs
    "gradient_checkpointing": "compute.checkpointing",
    "num_workers": "compute.workers",
    "dataloader_num_workers": "compute.workers",
    "deepspeed": "sharding",
    "fsdp": "sharding",
    "zero_stage": "sharding.stage",
    "output_dir": "results.folder",
    # peft
    "peft_type": "adapter.kind",
    "r": "adapter.rank",
    "lora_r": "adapter.rank",
    "lora_rank": "adapter.rank",
    "init_lora_weights": "adapter.initialization",
    "modules_to_save": "head.in_kernel",
    "layers_to_transform": "grid.layer_sets",
}
"""Dotted keys by the names of other libraries. Names like those of the keys need no entry: messages find them."""
