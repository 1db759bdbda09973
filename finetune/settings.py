"""Settings of a model, its adapter, its head and its task: plain values, the same on disk and in memory."""

from dataclasses import dataclass
from typing import Literal

TaskKind = Literal["classification", "regression"]
Labels = tuple[tuple[str, int | None], ...]
"""The class of each label by its name; None for labels whose rows are left out."""

Sampling = Literal["random", "balanced", "first"]
Operation = Literal["interpolation", "addition", "negation"]
ModelDType = Literal["float32", "float64", "bfloat16", "float16"]
AdapterKind = Literal["lora", "none"]
HeadKind = Literal["random", "pretrained", "ridge", "logistic", "label_words"]


@dataclass(frozen=True)
class ModelSettings:
    """The pretrained model, as transformers loads it.

    Attributes:
        path: folder, or id on the hub.
        revision: branch, tag or commit on the hub; None takes the default branch.
        dtype: precision of weights and activations.
        attention: attention implementation of transformers; architectures without "sdpa" run "eager" anyway.
        trust_remote_code: whether Python code that comes with the model may run.
        weights: "pretrained" loads the checkpoint; "random" draws what config.json describes.
        weights_seed: seed of random weights.
        device: where the model computes.
        checkpointing: keep activations at layer boundaries alone, and compute the rest again in the backward pass.
        alone: every example goes through the model alone, which is in its state after loading each time.
    """

    path: str
    revision: str | None = None
    dtype: ModelDType = "float32"
    attention: Literal["sdpa", "eager"] = "sdpa"
    trust_remote_code: bool = False
    weights: Literal["pretrained", "random"] = "pretrained"
    weights_seed: int = 0
    device: Literal["cpu", "cuda"] = "cpu"
    checkpointing: bool = False
    alone: bool = False


@dataclass(frozen=True)
class ShardingSettings:
    """The sharding of a model over the processes of a group.

    Attributes:
        group_size: how many processes there are.
        stage: stage of DeepSpeed's ZeRO: 3 shards the weights over them, 0 leaves all of them on each.
        offload: "cpu" keeps the parts in the host's memory, and only the layer at work on the GPU.
    """

    group_size: int
    stage: Literal[0, 3] = 3
    offload: Literal["none", "cpu"] = "none"

    @property
    def shards_weights(self) -> bool:
        """True if a process has only a part of the weights on its device; a lone one may offload to its host."""
        return self.stage == 3 and (self.group_size > 1 or self.offload == "cpu")


@dataclass(frozen=True)
class AdapterSettings:
    """The parameters whose Jacobian is taken.

    Attributes:
        kind: "lora" adapts the target modules through peft; "none" takes their own weights and biases.
        rank: rank r of LoRA.
        lora_alpha: LoRA's alpha; its update is scaled by alpha / r.
        target_modules: names, or ends of names, of linear modules of the base model.
        initialization: "zero" starts LoRA's B at 0, "random" draws it as A is drawn.
    """

    kind: AdapterKind
    rank: int
    lora_alpha: float
    target_modules: tuple[str, ...]
    initialization: Literal["zero", "random"] = "zero"


@dataclass(frozen=True)
class HeadSettings:
    """The head, which turns the last hidden state into outputs.

    Attributes:
        kind: "random" draws the head, "pretrained" keeps the checkpoint's, "ridge" and "logistic" take the
            weights of a probe, "label_words" reads the logits of `words` from a language model, masked or causal.
        in_kernel: whether the head's own parameters are a group.
        l2_penalty: L2 penalty of a ridge or logistic probe.
        words: words whose logits are the outputs, one a class, one token each.
    """

    kind: HeadKind
    in_kernel: bool = True
    l2_penalty: float = 1.0
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class TaskSettings:
    """The sentences and what is predicted from them.

    Attributes:
        data: Parquet, CSV or JSONL file, folder of such files, or id on the hub.
        config: configuration of a data set on the hub.
        revision: commit of a data set on the hub; None takes the newest.
        train_split: split that training examples come from.
        eval_split: split that evaluation examples come from; None holds them out from `train_split`.
        text: column of the sentence.
        text_pair: column of a second sentence, or None.
        label: column of the class or rating.
        kind: whether the label is a class or a real number.
        labels: the class of each label; empty takes whole numbers as classes, and names in their alphabetical order.
        sign_cut: makes two classes of real labels: above the cut is 1, below minus the cut is 0, the others
            are left out.
        template: prompt with {text} (and {text_pair}, {mask}) in it, or None.
        max_length: tokens kept of an example.
        skip_blank_texts: whether rows without a text are left out; otherwise they are an error.
        distinct_texts: whether each text is kept once, and no training text that an evaluation split has.
    """

    data: str
    kind: TaskKind
    config: str | None = None
    revision: str | None = None
    train_split: str = "train"
    eval_split: str | None = None
    text: str = "text"
    text_pair: str | None = None
    label: str = "label"
    labels: Labels = ()
    sign_cut: float | None = None
    template: str | None = None
    max_length: int = 128
    skip_blank_texts: bool = False
    distinct_texts: bool = False
