"""Errors of a model, a task or an adapter, each with its own name."""

from collections.abc import Sequence


class FinetuneError(ValueError):
    """Base of the errors of `finetune`; the message says which example, field or module, and what to do.

    Attributes:
        setting: the setting whose value is the cause, as `task.label`; empty if there is no such setting.
    """

    setting = ""

    def __init__(self, said: str = "", *, setting: str | None = None) -> None:
        super().__init__(said)
        if setting is not None:
            self.setting = setting


class ModelLoadError(FinetuneError):
    """The model or its tokenizer cannot be found or read, or lacks weights that it needs."""

    setting = "model.path"


class ModelRunError(FinetuneError):
    """The model cannot be run on texts, or its outputs cannot be differentiated."""


class DeviceError(FinetuneError):
    """The device does not compute in the model's precision."""

    setting = "model.dtype"


class UnsupportedModelError(FinetuneError):
    """The architecture is one that the scorer does not understand."""

    setting = "model.path"


class BatchingError(UnsupportedModelError):
    """The outputs of an example depend on other examples in its batch, or on those before it."""


class AdapterExportError(FinetuneError):
    """A trained cell cannot be written as an adapter of peft."""


class TargetError(FinetuneError):
    """A target module or a group matches nothing in the model."""

    setting = "adapter.target_modules"


class HeadError(FinetuneError):
    """The head does not fit the checkpoint, the number of outputs or the weights given for it."""

    setting = "head.kind"


class LabelWordError(HeadError):
    """A label word is not one token of its own."""

    setting = "head.words"


class PromptError(HeadError):
    """The prompt does not show a language model where its label words are read."""

    setting = "task.template"


class ProbeError(HeadError):
    """A probe could not be fitted to the features."""


class OutputModeError(FinetuneError):
    """The outputs of the kernel do not fit the number of outputs of the model."""

    setting = "kernel.outputs"


class CombinationError(FinetuneError):
    """Two trained models did not start from the same weights, or have other parameters."""


class DataLoadError(FinetuneError):
    """The data set cannot be found or read."""


class SplitError(DataLoadError):
    """The data set has no split of that name."""


class MissingColumnError(FinetuneError):
    """A column that the task names does not exist.

    Attributes:
        columns: the names that are missing.
    """

    def __init__(self, said: str = "", *, columns: Sequence[str] = ()) -> None:
        super().__init__(said)
        self.columns = tuple(columns)


class EmptyTextError(FinetuneError):
    """An example has no text, or its text has no token."""


class TextError(FinetuneError):
    """A text holds something that is not a character."""


class LabelError(FinetuneError):
    """A label is not a number, stands outside the head, or leaves classes that never occur."""


class TooFewExamplesError(FinetuneError):
    """The data set has fewer examples than are asked for."""


class SamplingError(FinetuneError):
    """The training examples cannot be chosen in the way that is asked for."""


class TooLongError(FinetuneError):
    """An example or the prompt around it has more tokens than the model or the task takes."""

    setting = "task.max_length"


class ProcessGroupError(FinetuneError):
    """The processes of a group cannot work together."""
