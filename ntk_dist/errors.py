"""Errors of the tensors and modules that are passed to `ntk_dist`, each with its own name."""


class NtkError(ValueError):
    """Base of the errors of `ntk_dist`; the message says what to do next."""


class NonFiniteError(NtkError):
    """A NaN or an infinity stands where a number is needed."""


class TiedWeightsError(NtkError):
    """One parameter is tracked twice, so that its gradient would be counted twice."""


class NotRecordedError(NtkError):
    """A tracked module takes part in the outputs without being called as a module."""


class InputLayoutError(NtkError):
    """A tracked module got an input whose rows cannot be told apart by example."""
