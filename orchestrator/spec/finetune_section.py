"""The section `finetune` of a spec: training of every cell, and of its linearization."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from finetune.settings import Operation
from orchestrator.spec.quantities import Count, CountOrNone, First, Number, Real, Share
from orchestrator.spec.section import Adds, Section
from orchestrator.spec.shorthand import ONE_OR_MORE


def _kind_of_trained_examples(value: Any) -> str:
    """Return which of the two types a value was meant to be, so that only the errors of that type are reported."""
    return "all" if isinstance(value, str) and not value.strip().isdecimal() else "number"


TrainedExamples = Annotated[
    Annotated[Count, Tag("number")] | Annotated[Literal["all"], Tag("all")],
    Discriminator(_kind_of_trained_examples),
]


class CombinationsSection(Section):
    """Weights trained on two tasks of the grid, combined and evaluated on both."""

    coefficients: Annotated[tuple[Annotated[float, Number, Field(ge=0, le=1)], ...], First] = Field(
        (0.25, 0.5, 0.75), description="The coefficients a.", examples=[[0.25, 0.5, 0.75]], min_length=1
    )
    operations: Annotated[tuple[Operation, ...], First] = Field(
        ("interpolation", "addition", "negation"),
        description="With displacements d_i and d_j of two tasks: interpolation (1 - a) d_i + a d_j, addition a (d_i + "
        "d_j), negation -a d_i of either (arXiv 2305.12827).",
        examples=[["interpolation", "addition"]],
        min_length=1,
    )


class SmoothnessSection(Section):
    """Norms of the Hessians of single outputs in the trained parameters, around theta_0 and at trained weights."""

    radii: Annotated[tuple[Annotated[float, Number, Field(ge=0)], ...], First] = Field(
        (0.0, 0.1, 1.0, 10.0),
        description="Distances r, where the Hessians at theta_0 + r v are taken; v is a unit vector in the space of "
        "the trained parameters, which the seed of the grid draws, the same for all r.",
        examples=[[0.0, 0.1, 1.0, 10.0]],
        min_length=1,
    )
    examples: Count = Field(
        4, description="Number of evaluation examples, the first ones, whose outputs are measured.", examples=[4]
    )


class FinetuneSection(Section):
    """The training of each cell, and of its linearization in the same way; without this section nothing is trained."""

    loss: Literal["squared", "cross_entropy"] = Field(
        "squared", description="squared compares outputs with coded classes or labels, as the kernel does.",
        examples=["squared"],
    )  # fmt: skip
    regularizer: Literal["l2sp", "selective", "spd", "decoupled"] = Field(
        "l2sp",
        description="The way in which lambda holds the weights near the pretrained ones: l2sp adds (lambda/2)|theta - "
        "theta_0|^2 to the loss; selective adds its gradient at those steps at which descent on the loss R leads back "
        "by itself, <grad R, theta - theta_0> >= 0, and nothing while it leads away (arXiv 2602.08239, equation 8); "
        "decoupled subtracts it from the weights apart from the optimizer's step; spd projects after a step (arXiv "
        "2411.01713). The columns *_pulled say how often lambda acted.",
        examples=["l2sp"],
    )
    optimizer: Literal["gradient_descent", "sgd", "adamw"] = Field(
        "adamw",
        description="gradient_descent takes all examples at every step, as the theory does; the others take batches.",
        examples=["adamw"],
    )
    learning_rate: Real = Field(
        description="Learning rate, of the loss and the penalty divided by the number of training examples.",
        examples=[1e-3],
    )
    n_train: TrainedExamples | None = Field(
        None,
        description="Number of examples that cells are trained on, apart from the kernel's: the kernel, its ridge path "
        "and bounds take the first grid.n_train of them, and a head that is fitted is fitted to those. `all` takes "
        "every training example of the data. The linearization is then trained by products. null trains on the "
        "kernel's examples.",
        examples=["all"],
    )
    epochs: Count = Field(description="Number of passes over the training examples.", examples=[10])
    batch_size: Count = Field(16, description="Training examples of a batch.", examples=[16])
    gradient_accumulation_steps: Count = Field(
        1, description="Batches whose gradients make one step; gradient descent takes them all.", examples=[1]
    )
    lr_scheduler_type: Literal["constant", "linear", "cosine"] = Field(
        "constant",
        description="Course of the learning rate after the warm-up; linear and cosine end at 0.",
        examples=["linear"],
    )
    warmup_ratio: Share = Field(
        0.0, description="Share of the steps over which the learning rate rises from 0.", examples=[0.06]
    )
    momentum: Share = Field(0.0, description="Momentum of sgd.", examples=[0.9])
    max_grad_norm: Real | None = Field(
        None,
        description="Largest norm of a cell's gradient, to which a larger one is scaled down; null sets no limit.",
        examples=[1.0],
    )
    early_stopping_patience: Count | None = Field(
        None,
        description="Number of evaluations without a smaller evaluation loss after which a cell stops and keeps its "
        "best weights; null trains to the end.",
        examples=[3],
    )
    num_evaluations: Count = Field(
        10,
        description="Number of evaluations on all examples during training, each a row of `trajectories`.",
        examples=[10],
    )
    kernel_examples: CountOrNone = Field(
        16,
        description="Number of training examples on which changes of the kernel are measured during training; 0 "
        "measures none.",
        examples=[16],
    )
    stacked_cells: Count = Field(
        8,
        description="Most cells of a layer set that are stacked: trained together in one model, which shares the "
        "frozen weights between them. They differ in lambda, and in what stacked_across names. Cells that join a "
        "sweep later make stacks of their own, and those that were trained stay in theirs. Part of the numbers: their "
        "last bits depend on it.",
        examples=[8],
    )
    stacked_across: Annotated[tuple[Literal["learning_rates", "seeds"], ...], First, ONE_OR_MORE] | None = Field(
        None,
        description="Axes of the grid other than lambda in which stacked cells may differ. A value that leaves such an "
        "axis later makes those that were stacked with it be trained again; values that join do not.",
        examples=[["seeds"]],
    )
    prefix_cache: bool = Field(
        True,
        description="Compute what enters the lowest trained layer once for each example, and read it from memory at "
        "every step instead of running the frozen layers below. Part of the numbers, as stacked_cells.",
        examples=[True],
    )

    linearization: Literal["rows", "products"] | None = Field(
        None,
        description="The method of training the linearization: rows holds the Jacobian rows in memory; products takes "
        "exact products with the Jacobian from the model, which need no rows and take once or twice the time of the "
        "model. null takes rows where they fit compute.memory_budget, else products; numbers agree to rounding. A "
        "model that is sharded (`sharding`) has rows alone.",
        examples=["products"],
    )
    train_head: bool | None = Field(
        None,
        description="Whether training changes the head; null takes the value of head.in_kernel. true with a head "
        "outside the kernel trains it beside every layer set; the linearization has the kernel's parameters and lacks "
        "the head's.",
        examples=[True],
    )
    combinations: Annotated[CombinationsSection | None, Adds()] = Field(
        None,
        description="Combine the weights trained on every two tasks of grid.tasks, of the model and of its "
        "linearization, and write the table `combinations`; null does not.",
        examples=[{"coefficients": [0.25, 0.5, 0.75], "operations": ["interpolation", "addition", "negation"]}],
    )
    smoothness: Annotated[SmoothnessSection | None, Adds()] = Field(
        None,
        description="Measure the spectral norms of the Hessians of outputs, around theta_0 for every layer set and at "
        "the weights of every trained cell, and write the table `smoothness`; null does not. A model that is sharded "
        "(`sharding`) cannot.",
        examples=[{"radii": [0.0, 0.1, 1.0, 10.0], "examples": 4}],
    )

    @model_validator(mode="after")
    def _consistent(self) -> "FinetuneSection":
        if self.optimizer == "gradient_descent" and self.gradient_accumulation_steps != 1:
            raise ValueError(
                "gradient_accumulation_steps belongs to sgd and adamw: gradient_descent takes all examples at every "
                "step"
            )
        if self.optimizer != "sgd" and self.momentum:
            raise ValueError("`momentum` is only for `optimizer: sgd`")
        return self

    def steps_per_epoch(self, n_train: int) -> int:
        """Return the number of updates in an epoch of `n_train` examples."""
        if self.optimizer == "gradient_descent":
            return 1
        return -(-n_train // (self.batch_size * self.gradient_accumulation_steps))
