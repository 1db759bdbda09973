"""The sections of a spec: what is computed (model, task, adapter, head, kernel) and where it goes (results)."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ntk_dist.kernel.features import KernelKind, OutputMode
from orchestrator.spec.labels import LabelClasses
from orchestrator.spec.listed import FlowTimesSection
from orchestrator.spec.places import Folder, Place
from orchestrator.spec.quantities import Count, First, Number, Rank, Real, Seed
from orchestrator.spec.section import Adds, Section
from orchestrator.spec.shorthand import ONE_OR_MORE, STRENGTHS, renamed

Name = Annotated[str, Field(min_length=1)]


class ModelSection(Section):
    """The pretrained model, as transformers loads it."""

    @model_validator(mode="before")
    @classmethod
    def _not_its_path_alone(cls, value: Any) -> Any:
        if isinstance(value, str) and value:
            place = value[:60]
            raise ValueError(
                f"`{place}` is a path or an id, and stands under the key path: write model.path={place}, in a file "
                f"model: {{path: {place}}}"
            )
        return value

    path: Place = Field(
        description="Folder of the model (relative to the spec file), or its id on the hub.",
        examples=["data/minilm", "FacebookAI/roberta-base"],
    )
    revision: str | None = Field(
        None,
        description="Branch, tag or commit on the hub; null takes the default branch.",
        examples=["main"],
    )
    dtype: Literal["float32", "float64", "bfloat16", "float16"] = Field(
        "float32",
        description="Precision of weights and activations, and of Jacobian rows unless compute.row_dtype says another.",
        examples=["bfloat16"],
    )
    attention: Literal["sdpa", "eager"] = Field(
        "sdpa",
        description="Attention implementation of transformers. Architectures without sdpa (Gemma 2) run eager anyway.",
        examples=["sdpa"],
    )
    trust_remote_code: bool = Field(
        False,
        description="The model is loaded by Python code that comes with it. That code runs only if the command is "
        "given --trust-remote-code too.",
        examples=[False],
    )
    weights: Literal["pretrained", "random"] = Field(
        "pretrained",
        description="pretrained loads the checkpoint; random draws all weights as the architecture initializes them, "
        "for tests and timings: the folder then needs config.json and a tokenizer alone.",
        examples=["random"],
    )
    weights_seed: Seed = Field(0, description="Seed of random weights.", examples=[0])


class TaskSection(Section):
    """The examples: sentences with classes or ratings to predict."""

    data: Place = Field(
        description="Parquet, CSV, TSV or JSONL file, a folder of them (relative to the spec file), or a dataset's id "
        "on the hub.",
        examples=["data/amazon.parquet", "nyu-mll/glue"],
    )
    config: str | None = Field(None, description="Configuration of a dataset on the hub.", examples=["sst2"])
    train_split: Name = Field(
        "train",
        description="Split that training examples are drawn from; in a folder the name of its file, `train` for "
        "train.csv.",
        examples=["train"],
    )
    eval_split: Name | None = Field(
        None,
        description="Split that evaluation examples are drawn from; null holds them out from `train_split`.",
        examples=["validation"],
    )
    text: Name = Field("text", description="Column that holds the sentence.", examples=["text"])
    text_pair: Name | None = Field(
        None, description="Column that holds a second sentence, for pair tasks.", examples=["hypothesis"]
    )
    label: Name = Field("label", description="Column that holds the class or the rating.", examples=["rating"])
    kind: Literal["classification", "regression"] = Field(
        description="Classification regresses on coded classes (+1 for the class, -1/(C-1) for the others); regression "
        "on the label itself. Both with squared loss.",
        examples=["classification"],
    )
    classes: Annotated[int, Number, Field(ge=2, le=1_000_000)] | None = Field(
        None,
        description="Number of classes C; null takes the largest label plus one, and every label up to it must occur.",
        examples=[2],
    )
    labels: LabelClasses | None = Field(
        None,
        description="Class of each label, by its name in the data; null leaves out the rows of a label, and '' names a "
        "missing one. Several labels may be one class. Without it whole numbers are classes, and names get classes in "
        "alphabetical order (`plan` lists them). A list names classes 0, 1, 2, ...",
        examples=[{"Business": 0, "Sport": 1, "unsure": None}],
    )
    sign_cut: Annotated[float, Number, Field(ge=0)] | None = Field(
        None,
        description="Make two classes of ratings: above the cut is 1, below minus the cut is 0, between is left out "
        "because its sign is ambiguous.",
        examples=[0.5],
    )
    template: str | None = Field(
        None,
        description="Prompt around the sentence; must contain {text}. With label words of a masked language model also "
        "{mask}, where they are read; a causal one reads them at the end.",
        examples=["{text} It was"],
    )
    max_length: Count = Field(128, description="Tokens kept of an example; longer ones are cut.", examples=[128])
    n_eval: Count = Field(description="Number of evaluation examples.", examples=[300])
    sampling: Literal["random", "balanced", "first"] = Field(
        "random",
        description="random draws examples; balanced draws as many training examples of each class, so that k examples "
        "of each of C classes are n_train = k C; first takes the first rows of each split, and where evaluation "
        "examples are held out, the split's last rows for them.",
        examples=["balanced"],
    )
    skip_blank_texts: bool = Field(
        False,
        description="Leave out rows whose text is missing or blank; otherwise the first of them is an error.",
        examples=[True],
    )
    distinct_texts: bool = Field(
        False,
        description="Keep each text once, in every kind of sampling: of rows with the same text the first, and none of "
        "a training split whose text is in `eval_split`. Without it texts that stand several times may be trained on "
        "and evaluated: `plan` and the tables count them.",
        examples=[True],
    )
    sample_seed: Seed | None = Field(
        None,
        description="Seed that draws the examples; null takes the seed of the grid, so that every seed draws its own.",
        examples=[0],
    )

    @model_validator(mode="after")
    def _consistent(self) -> "TaskSection":
        if self.sign_cut is not None and self.kind != "classification":
            raise ValueError("sign_cut makes classes of ratings: set `kind: classification` or remove it")
        if self.classes is not None and self.kind != "classification":
            raise ValueError("classes belongs to classification: set `kind: classification` or remove it")
        if self.labels is not None and self.kind != "classification":
            raise ValueError("labels are of classes: set `kind: classification` or remove them")
        if self.labels is not None and self.sign_cut is not None:
            raise ValueError("labels and sign_cut both make classes: remove one of them")
        found = {of for of in (self.labels or {}).values() if of is not None}
        if self.labels is not None and self.classes not in (None, len(found)):
            raise ValueError(f"labels name {len(found)} classes, and classes says {self.classes}: remove `classes`")
        if self.sign_cut is not None and self.classes not in (None, 2):
            raise ValueError("sign_cut makes exactly two classes: set `classes: 2` or remove it")
        if self.label in (self.text, self.text_pair):
            raise ValueError(
                f"`{self.label}` is the column of the texts and of the labels: name another one for either"
            )
        if self.text_pair == self.text:
            raise ValueError(
                f"`{self.text}` is the column of both texts of a pair: name another one, or remove `text_pair`"
            )
        if self.template is not None and "{text}" not in self.template:
            raise ValueError("template must contain {text}, where the sentence goes")
        if self.template is not None and self.template.count("{mask}") > 1:
            raise ValueError("template may contain {mask} once, where the label words are read")
        if self.sampling == "balanced" and self.kind != "classification":
            raise ValueError("sampling: balanced needs classes: set `kind: classification`, or `sampling: random`")
        if self.sampling == "first" and self.sample_seed is not None:
            raise ValueError("sampling: first draws no examples: remove sample_seed, or set `sampling: random`")
        return self


SHORT_NAMES = {"targets": "target_modules"}
"""Keys of the section `adapter` by shorter names."""


class AdapterSection(Section):
    """The parameters that may be fine-tuned: LoRA matrices, or the weights of named modules themselves."""

    kind: Literal["lora", "none"] = Field(
        "lora",
        description="lora adapts `target_modules` through peft; none trains the weights and biases of `target_modules` "
        "themselves.",
        examples=["lora"],
    )
    rank: Rank = Field(8, description="Rank r of LoRA.", examples=[8])
    lora_alpha: Real = Field(16.0, description="LoRA's alpha; its update is scaled by alpha / r.", examples=[16])
    target_modules: Annotated[tuple[Name, ...], First, ONE_OR_MORE] = Field(
        description="Names, or ends of names, of the linear modules to adapt in every layer; `targets` is another name "
        "of this key.",
        examples=[["query", "value"]],
        min_length=1,
    )
    initialization: Literal["zero", "random"] = Field(
        "zero",
        description="zero starts LoRA's B at 0, so that the model is the pretrained one; random draws B as A.",
        examples=["zero"],
    )
    seed: Seed | None = Field(
        None, description="Seed of LoRA's A (and B); null takes the seed of the grid.", examples=[0]
    )

    @model_validator(mode="before")
    @classmethod
    def _full_names(cls, data: Any) -> Any:
        return renamed(data, SHORT_NAMES)


class HeadSection(Section):
    """The head, which turns the last hidden state into outputs."""

    kind: Literal["random", "pretrained", "ridge", "logistic", "label_words"] = Field(
        "random",
        description="random draws a new linear head; pretrained keeps the checkpoint's; ridge and logistic fit a probe "
        "on the training examples, ridge to the kernel's targets, logistic to the labels by cross-entropy, so that its "
        "outputs are log-odds and not near the targets; label_words reads the logits of `words` from a language model: "
        "at the {mask} of `task.template` of a masked one, at the end of the text of a causal one.",
        examples=["random"],
    )
    seed: Seed | None = Field(None, description="Seed of a random head; null takes the seed of the grid.", examples=[0])
    in_kernel: bool = Field(
        True,
        description="Whether the head is trained too, and its block added to every layer set. finetune.train_head can "
        "train it outside the kernel.",
        examples=[True],
    )
    l2_penalty: Real = Field(1.0, description="L2 penalty of a ridge or logistic probe.", examples=[1.0])
    words: Annotated[tuple[str, ...], First] = Field(
        (), description="Words whose logits are the outputs, one a class, one token each.",
        examples=[[" terrible", " great"]],
    )  # fmt: skip

    @model_validator(mode="after")
    def _consistent(self) -> "HeadSection":
        if self.kind == "label_words" and not self.words:
            raise ValueError("`kind: label_words` needs one word for each class: give `words`")
        if self.words and self.kind != "label_words":
            raise ValueError("`words` is only for `kind: label_words`: set that, or remove `words`")
        if self.kind == "label_words" and self.in_kernel:
            raise ValueError("label_words has no head to train: set `in_kernel: false`")
        return self


class KernelSection(Section):
    """The kernel that is made of the Jacobian, and the numbers of its spectrum that are computed."""

    kind: KernelKind = Field(
        "sgd",
        description="sgd is J J'; sign is sign(J) sign(J)'; asymmetric_sign is J sign(J)' (arXiv 2210.05643).",
        examples=["sgd"],
    )
    outputs: OutputMode = Field(
        "full",
        description="full keeps every pair of outputs (n C rows); trace averages over outputs (n rows); margin takes "
        "the difference of two logits (n rows).",
        examples=["full"],
    )
    sigma: Real = Field(
        1e-4, description="Added to the spectrum for the condition number with fixed sigma.", examples=[1e-4]
    )
    relative_sigma: Real = Field(
        1e-6,
        description="The same in units of trace/M, for the condition number with trace-relative sigma.",
        examples=[1e-6],
    )
    eigenvectors: bool = Field(
        False,
        description="Compute eigenvectors too: gives leave-one-out losses, at about 2.5 times the time of the "
        "decomposition; a logistic head is fitted again without each example.",
        examples=[False],
    )
    decomposition: Literal["full", "iterative"] = Field(
        "full",
        description="full decomposes each kernel; iterative never holds one: it multiplies with the stored tiles, for "
        "kernels larger than memory, and gives the ends of the spectrum, its density, and ridge paths by conjugate "
        "gradients, but no eigenvalues between, degrees of freedom or leave-one-out. Layer sets with fewer parameters "
        "than the kernel has rows are decomposed in full all the same, as large as their parameters.",
        examples=["iterative"],
    )
    blocks: Annotated[Literal["auto", "groups", "atoms"], Adds()] = Field(
        "auto",
        description="What each stored block of the kernel sums. groups stores one for every group of parameters, from "
        "which any layer set can be made later. atoms stores one for all groups that stand in exactly the same layer "
        "sets: less to write and to read, while layer sets that join later need further blocks where they cut one, and "
        "`select --greedy` one for every layer. auto takes groups while their blocks stay below 10 GB a seed. The "
        "numbers are the same to rounding.",
        examples=["atoms"],
    )
    additions: Annotated[bool, Adds()] = Field(
        False,
        description="Add to every layer set each layer that it lacks, and write what that does to the spectrum, beside "
        "what bounds it, into the table `additions`. Costs a decomposition with eigenvectors for each layer set, one "
        "without for each sum, and the kernel blocks of all layer sets, also of those with few parameters.",
        examples=[True],
    )
    contributions: Annotated[bool, Adds()] = Field(
        False,
        description="Write into the table `contributions` how much each block of a layer set's kernel carries of the "
        "change of the outputs and of the weights, at every lambda. Costs a product of each block with a few dozen "
        "vectors.",
        examples=[True],
    )
    flow_times: Annotated[FlowTimesSection | None, STRENGTHS, Adds()] = Field(
        None,
        description="Times at which training of the linearized model, by gradient flow and by gradient descent, is "
        "evaluated without taking its steps: losses, metrics and |d| at each, without lambda and with every lambda of "
        "the grid, into the table `flow`. A list gives the `values`, on the absolute scale. Needs `eigenvectors: "
        "true`; further lambdas then decompose anew.",
        examples=[{"logspace": {"start": 1.0, "stop": 1e5, "count": 16}, "scale": "sigma_max"}],
    )

    @model_validator(mode="after")
    def _consistent(self) -> "KernelSection":
        if self.flow_times is not None and not self.eigenvectors:
            possible = self.kind != "asymmetric_sign" and self.decomposition == "full"
            fix = "set `eigenvectors: true`, or leave `flow_times` out" if possible else "leave `flow_times` out"
            raise ValueError(f"flow_times follows training mode by mode and needs every eigenvector: {fix}")
        if self.kind == "asymmetric_sign" and self.eigenvectors:
            raise ValueError("asymmetric_sign is not symmetric and has no leave-one-out path: set "
                             "`eigenvectors: false`")  # fmt: skip
        if self.decomposition == "iterative" and (self.eigenvectors or self.additions):
            key = "eigenvectors" if self.eigenvectors else "additions"
            raise ValueError(f"{key} needs every eigenvector: set `{key}: false`, or `decomposition: full`")
        if self.decomposition == "iterative" and self.kind == "asymmetric_sign":
            raise ValueError("iterative decompositions need a symmetric kernel: set `kind: sgd` or `sign`, or "
                             "`decomposition: full`")  # fmt: skip
        if self.kind == "asymmetric_sign" and self.additions:
            raise ValueError("additions are bounded through eigenvalues of symmetric kernels, and asymmetric_sign is "
                             "not symmetric: set `additions: false`, or `kind: sign`")  # fmt: skip
        if self.kind == "asymmetric_sign" and self.contributions:
            raise ValueError("contributions share out |d|, which asymmetric_sign does not have: set `contributions: "
                             "false`, or `kind: sign`")  # fmt: skip
        return self


class ResultsSection(Section):
    """The results folder, and tables that are written on request."""

    folder: Folder | None = Field(
        None,
        description="Results folder (relative to the current folder); null takes results/<name>.",
        examples=["results/quickstart"],
    )
    predictions: bool = Field(
        False,
        description="Write a row for every evaluation example, output and cell in the table `predictions`.",
        examples=[False],
    )
