"""Small training problems in float64: a linear model, and a tiny transformer with LoRA."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from finetune.data.tokens import TokenizedTexts, tokenize
from finetune.model.scorer import Scorer
from finetune.scorers import build_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from finetune.training.linearized import LinearizedModel, LinearRows
from finetune.training.loop import Targets
from finetune.training.origins import Origin
from finetune.training.run import Arrays
from finetune.training.settings import TrainingSettings
from finetune.training.stacked import StackedModel
from ntk_dist.jacobian.tracked import TrackedLinear

DESCENT = TrainingSettings("squared", "l2sp", "gradient_descent", 0.1, 50, batch_size=4)
ADAM = TrainingSettings("squared", "l2sp", "adamw", 0.01, 12, batch_size=3, eval_steps=4)

TEXTS = (
    "the film was great", "a dull plot", "good", "bad acting and a terrible story", "very very good but dull",
    "not bad", "the story is bright",
)  # fmt: skip
EVAL_TEXTS = ("great story", "the plot is terrible", "dull")
GROUPS = ["1.query", "1.value", "head"]


@dataclass(frozen=True, eq=False)
class LinearProblem:
    """J d against residuals: n examples with R outputs and p parameters in two modules."""

    n: int = 6
    R: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            self.__dict__["linears"] = [
                TrackedLinear(nn.Linear(3, 2).double(), "first", bias=True),
                TrackedLinear(nn.Linear(2, 2).double(), "second"),
            ]
        p = sum(linear.n_parameters for linear in self.linears)
        draw = np.random.default_rng(self.seed)
        for split, n in (("train", self.n), ("eval", 3)):
            J, f, y = draw.normal(size=(n, self.R, p)), draw.normal(size=(n, self.R)), draw.normal(size=(n, self.R))
            self.__dict__[split] = (J, f, y)

    def model(self, n_cells: int = 1) -> LinearizedModel:
        rows = {
            split: LinearRows(torch.from_numpy(self.__dict__[split][1]), torch.from_numpy(self.__dict__[split][0]))
            for split in ("train", "eval")
        }
        return LinearizedModel(rows, self.linears, n_cells)

    @property
    def targets(self) -> Targets:
        return Targets(torch.from_numpy(self.__dict__["train"][2]), torch.from_numpy(self.__dict__["eval"][2]))

    @property
    def jacobian(self) -> np.ndarray:
        return self.__dict__["train"][0].reshape(self.n * self.R, -1)

    @property
    def residual(self) -> np.ndarray:
        _, f, y = self.__dict__["train"]
        return (y - f).reshape(-1, 1)


def flat(displacement: dict[str, torch.Tensor]) -> np.ndarray:
    return np.concatenate([tensor.detach().double().flatten().numpy() for tensor in displacement.values()])


@dataclass
class Kept:
    """A checkpoint in memory, saved at every step; `stop_after` steps the process dies."""

    stop_after: int | None = None
    arrays: Arrays | None = None
    saves: int = field(default=0)

    def load(self) -> Arrays | None:
        return self.arrays

    def due(self) -> bool:
        return True

    def save(self, arrays: Arrays) -> None:
        self.arrays = {name: np.array(array) for name, array in arrays.items()}
        self.saves += 1
        if self.saves == self.stop_after:
            raise KeyboardInterrupt


def scorer_of(folder: Path, *, dtype: str = "float64", seed: int = 0, **adapter: Any) -> Scorer:
    settings = replace(AdapterSettings("lora", 2, 4.0, ("query", "value")), **adapter)
    model = ModelSettings(str(folder), dtype=dtype)  # type: ignore[arg-type]
    return build_scorer(model, settings, HeadSettings("random"), n_outputs=2, adapter_seed=seed, head_seed=seed)


def texts_of(folder: Path) -> dict[str, TokenizedTexts]:
    model = ModelSettings(str(folder))
    return {
        split: tokenize(model, texts, template=None, max_length=16)
        for split, texts in (("train", TEXTS), ("eval", EVAL_TEXTS))
    }


def stacked_of(folder: Path, scorer: Scorer, n_cells: int = 1, groups: list[str] = GROUPS) -> StackedModel:
    return StackedModel(scorer, groups, [Origin(texts_of(folder))], "full", [0] * n_cells)


def coded_targets(dtype: torch.dtype = torch.float64) -> Targets:
    signs = torch.tensor([1.0, -1, 1, -1, -1, 1, 1], dtype=dtype), torch.tensor([1.0, -1, -1], dtype=dtype)
    return Targets(*(torch.stack([-sign, sign], dim=1) for sign in signs))
