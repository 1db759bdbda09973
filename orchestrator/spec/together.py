"""Rules that several sections of a spec must satisfy together, for each of its tasks."""

from typing import TYPE_CHECKING

from orchestrator.spec.finetune_section import FinetuneSection
from orchestrator.spec.sections import TaskSection

if TYPE_CHECKING:
    from orchestrator.spec.model import Spec


def check_together(spec: "Spec", task: TaskSection) -> None:
    """Check that the sections of a spec fit each other and one of its tasks.

    Raises:
        ValueError: says which do not, and what to change.
    """
    if spec.kernel.outputs == "margin" and (task.kind != "classification" or task.classes not in (None, 2)):
        raise ValueError("kernel.outputs: margin is the difference of two logits and needs two classes")
    if spec.head.kind in ("ridge", "logistic") and len(set(spec.grid.n_train)) > 1:
        raise ValueError(
            "a fitted head depends on the training set: give grid.n_train one value (and write a spec for each size), "
            "or use `head: {kind: random}`"
        )
    _check_seeds(spec, task)
    _check_devices(spec)
    if spec.head.kind == "logistic" and task.kind != "classification":
        raise ValueError("head.kind: logistic needs a classification task; use ridge for regression")
    if spec.head.kind == "label_words" and task.kind != "classification":
        raise ValueError("head.kind: label_words needs a classification task")
    if spec.head.kind != "label_words" and task.template is not None and "{mask}" in task.template:
        raise ValueError(
            "task.template: {mask} is where label words are read: set `head.kind: label_words`, or remove {mask}"
        )
    if spec.finetune is not None:
        _check_finetune(spec, spec.finetune, task)


def _check_seeds(spec: "Spec", task: TaskSection) -> None:
    adapter_fixed = spec.adapter.seed is not None or spec.adapter.kind == "none"
    head_fixed = spec.head.seed is not None or spec.head.kind != "random"
    sample_fixed = task.sample_seed is not None or task.sampling == "first"
    if len(set(spec.grid.seeds)) > 1 and sample_fixed and adapter_fixed and head_fixed:
        raise ValueError(
            "grid.seeds has several values, but sample, adapter and head are the same for all of them, so every seed "
            "would give the same numbers: give one seed, or remove one of task.sample_seed, adapter.seed, head.seed "
            "(`sampling: first` draws no sample)"
        )


def _check_devices(spec: "Spec") -> None:
    on_gpu, sharding = spec.compute.device == "cuda", spec.sharding
    if spec.compute.tf32 and not on_gpu:
        raise ValueError("compute.tf32 is a precision of GPUs: set `compute.device: cuda`, or leave it out")
    if spec.model.weights == "pretrained" and spec.model.weights_seed != 0:
        raise ValueError("model.weights_seed draws random weights: set `model.weights: random`, or leave it out")
    if spec.compute.workers_per_gpu > 1 and not on_gpu:
        raise ValueError(
            "compute.workers_per_gpu shares GPUs among workers: set `compute.device: cuda`, or leave it out"
        )
    if not spec.compute.deterministic and not on_gpu:
        raise ValueError(
            "compute.deterministic is about GPUs, and processors give the same bits by themselves: set "
            "`compute.device: cuda`, or leave it out"
        )
    if sharding is None:
        return
    if spec.compute.workers_per_gpu > 1 and sharding.group_size > 1:
        raise ValueError(
            "compute.workers_per_gpu: each process of `sharding` needs a GPU for itself, for NCCL connects no two on "
            "one: leave it out, or the section `sharding`"
        )
    if sharding.offload == "cpu" and not (on_gpu and sharding.stage == 3):
        raise ValueError(
            "sharding.offload: cpu moves sharded weights from a GPU to its host: set `compute.device: cuda` and "
            "`sharding.stage: 3`, or leave it out"
        )
    if spec.model.dtype == "float64" and spec.is_sharded:
        raise ValueError("DeepSpeed has no float64: set `model.dtype: float32`, or leave the section `sharding` out")
    if spec.model.dtype == "float16" and not on_gpu:
        raise ValueError(
            "DeepSpeed has no float16 on CPUs: set `compute.device: cuda` or `model.dtype: bfloat16`, or leave the "
            "section `sharding` out"
        )
    if spec.compute.workers is not None and spec.compute.workers % sharding.group_size:
        raise ValueError(
            f"compute.workers: {spec.compute.workers} processes cannot be shared out among process groups of "
            f"sharding.group_size: {sharding.group_size}; give a multiple of {sharding.group_size}"
        )


def check_combinations(spec: "Spec") -> None:
    """Check that weights trained on several tasks can be combined.

    Raises:
        ValueError: says why it cannot, and what to change.
    """
    if spec.finetune is None or spec.finetune.combinations is None:
        return
    if len(spec.grid.tasks or {}) < 2:
        raise ValueError(
            "finetune.combinations combines what was trained on two tasks: name at least two in grid.tasks, or leave "
            "the key out"
        )
    if spec.head.kind in ("ridge", "logistic"):
        raise ValueError(
            f"finetune.combinations needs tasks that start from the same weights, and a {spec.head.kind} head is "
            "fitted to each task: set head.kind: random, pretrained or label_words, or leave the key out"
        )


def _check_finetune(spec: "Spec", finetune: FinetuneSection, task: TaskSection) -> None:
    if spec.model.dtype in ("bfloat16", "float16"):
        raise ValueError(
            f"finetune adds up small steps, which {spec.model.dtype} would round away: set `model.dtype: float32`, or "
            "remove the section finetune"
        )
    if finetune.loss == "cross_entropy" and task.kind != "classification":
        raise ValueError("finetune.loss: cross_entropy needs a classification task; use squared")
    if spec.kernel.kind != "sgd":
        raise ValueError("finetune compares training with the sgd kernel, which describes it: set kernel.kind: sgd")
    if finetune.train_head and spec.head.kind == "label_words":
        raise ValueError("finetune.train_head: label_words has no head to train: leave the key out")
    if finetune.train_head is False and spec.head.in_kernel:
        raise ValueError(
            "finetune.train_head: false keeps the head where it is, but the kernel has its parameters, as if they "
            "moved: set head.in_kernel: false too"
        )
    if finetune.linearization == "products" and spec.is_sharded:
        raise ValueError(
            "finetune.linearization: products differentiates the model twice, which DeepSpeed's ZeRO-3 cannot: set "
            "`finetune.linearization: rows`, or leave it out"
        )
    if finetune.smoothness is not None and spec.is_sharded:
        raise ValueError(
            "finetune.smoothness differentiates the model twice, which DeepSpeed's ZeRO-3 cannot: leave the key out, "
            "or the section `sharding`"
        )
    _check_trained_examples(spec, finetune, task)
    if finetune.regularizer == "spd" and spec.grid.lambdas.scale != "absolute":
        raise ValueError(
            "finetune.regularizer: spd takes lambda as a share of the way back, not as the strength of a penalty: "
            "set grid.lambdas.scale: absolute, with values around 1"
        )


def _check_trained_examples(spec: "Spec", finetune: FinetuneSection, task: TaskSection) -> None:
    n_train, largest = finetune.n_train, max(spec.grid.n_train)
    if n_train == "all" and task.sampling == "balanced":
        raise ValueError(
            "finetune.n_train: all takes as many examples of a class as there are, and task.sampling: balanced equally "
            "many: give a number, or leave out the sampling"
        )
    if isinstance(n_train, int) and n_train < largest:
        raise ValueError(
            f"finetune.n_train: {n_train} is less than the {largest} examples of the kernel, which are the first of "
            f"those that cells are trained on: give {largest} or more, or lower grid.n_train"
        )
