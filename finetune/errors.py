"""Errors of a model, a task or an adapter, each with its own name."""


class FinetuneError(ValueError):
    """Base of the errors of `finetune`; the message says which example, field or module, and what to do."""


class ModelLoadError(FinetuneError):
    """The model or its tokenizer cannot be found or read, or lacks weights that it needs."""


class ModelRunError(FinetuneError):
    """The model cannot be run on texts, or its outputs cannot be differentiated."""


class DeviceError(FinetuneError):
    """The device does not compute in the model's precision."""


class UnsupportedModelError(FinetuneError):
    """The architecture is one that the scorer does not understand."""


class BatchingError(UnsupportedModelError):
    """The outputs of an example depend on other examples in its batch, or on those before it."""


class AdapterExportError(FinetuneError):
    """A trained cell cannot be written as an adapter of peft."""


class TargetError(FinetuneError):
    """A target module or a group matches nothing in the model."""


class HeadError(FinetuneError):
    """The head does not fit the checkpoint, the number of outputs or the weights given for it."""


class LabelWordError(HeadError):
    """A label word is not one token of its own."""


class PromptError(HeadError):
    """The prompt does not show a language model where its label words are read."""


class ProbeError(HeadError):
    """A probe could not be fitted to the features."""


class OutputModeError(FinetuneError):
    """The outputs of the kernel do not fit the number of outputs of the model."""


class CombinationError(FinetuneError):
    """Two trained models did not start from the same weights, or have other parameters."""


class DataLoadError(FinetuneError):
    """The data set cannot be found or read."""


class SplitError(DataLoadError):
    """The data set has no split of that name."""


class MissingColumnError(FinetuneError):
    """A column that the task names does not exist."""


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


class ProcessGroupError(FinetuneError):
    """The processes of a group cannot work together."""
