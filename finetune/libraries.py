"""One message, with cause and fix, for whatever a library raises while it loads a model or runs it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from finetune.errors import FinetuneError, ModelLoadError, ModelRunError
from finetune.sharding.processes import is_lost_connection
from ntk_dist.errors import NtkError


@contextmanager
def loading(path: str, what: str = "model") -> Iterator[None]:
    """Raise whatever a library raises inside as a `ModelLoadError`; the original is its cause.

    Too little memory, a lost process of a group, and errors that have an explanation already come through as they are.

    Args:
        path: folder or id of the model.
        what: what is loaded from there.

    Raises:
        ModelLoadError: with the library's words and what to do.
    """
    try:
        yield
    except Exception as error:  # code of many authors raises whatever it likes, that of a checkpoint too
        if _comes_through(error):
            raise
        raise ModelLoadError(f"the {what} of {path} cannot be loaded: {_cause(error)}; {_fix(error, what)}") from error


@contextmanager
def running(name: str) -> Iterator[None]:
    """Raise whatever a library raises inside as a `ModelRunError`; the original is its cause.

    Comes through what comes through `loading`.

    Args:
        name: what the model is called, as its class.

    Raises:
        ModelRunError: with the library's words and what to do.
    """
    try:
        yield
    except Exception as error:  # as in `loading`
        if _comes_through(error):
            raise
        if "gradient edge" in str(error):
            raise ModelRunError(
                f"{name} hides the outputs of its layers from autograd, as architectures with a backward pass of their "
                "own do (Reformer), so that no Jacobian can be taken; use another architecture"
            ) from error
        raise ModelRunError(
            f"{name} cannot be run on these texts, or not differentiated: {_cause(error)}; {_running_fix(error)}"
        ) from error


def _comes_through(error: Exception) -> bool:
    if isinstance(error, FinetuneError | NtkError | MemoryError | torch.OutOfMemoryError) or is_lost_connection(error):
        return True
    # torch has no class for it on a CPU.
    words = ("out of memory", "not enough memory", "allocate memory")
    return isinstance(error, RuntimeError | OSError) and any(each in str(error) for each in words)


def _cause(error: Exception) -> str:
    """Return what a library says in one line, after the class of the error where that says more."""
    said = str(error).strip()
    # What other Python processes than this one would print is not for people.
    line = re.sub(r"\s+", " ", said.split("\n\n")[0])
    line = line if len(line) <= 300 else line[:300].rstrip() + "..."
    plain = isinstance(error, OSError | ValueError | ImportError) and line
    return (line if plain else f"{type(error).__name__}{': ' * bool(line)}{line}").rstrip(".")


def _missing_packages(error: Exception) -> str | None:
    """Return the packages that an error says are not installed; None if it says nothing of the kind."""
    if not isinstance(error, ImportError):
        return None
    listed = re.search(r"not found in your environment: ([\w.,\- ]+?)[.\s]*(?:Run|$)", str(error))
    advised = re.search(r"pip install ([\w.\-\[\]]+)", str(error))
    if listed:
        return " ".join(listed[1].replace(",", " ").split())
    return advised[1] if advised else error.name


def _fix(error: Exception, what: str) -> str:
    packages = _missing_packages(error)
    if packages:
        return f"install what it needs (pip install {packages}), also where workers run, or use another model"
    if "trust_remote_code" in str(error):
        return (
            "its code comes with the checkpoint: if you trust its authors, set model.trust_remote_code: true and give "
            "the command --trust-remote-code"
        )
    if "does not recognize this architecture" in str(error):
        return "it needs another version of transformers, or code that comes with the checkpoint"
    if what == "tokenizer":
        return "its files belong beside config.json: save the model's own tokenizer there"
    return "it must be a folder with config.json and weights, or an id on the hub"


def _running_fix(error: Exception) -> str:
    packages = _missing_packages(error)
    if packages:
        return f"install what it needs (pip install {packages}), also where workers run"
    return "try model.attention: eager or model.dtype: float32, or use another architecture"
