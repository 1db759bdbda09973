"""One message, with cause and fix, for any error that a library raises while it loads or runs a model."""

import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from finetune.errors import FinetuneError, ModelLoadError, ModelRunError
from finetune.libraries.damaged_files import damaged_file
from finetune.parallel.processes import is_lost_connection
from ntk_dist.device.faults import is_limit_of_process, is_out_of_memory
from ntk_dist.errors import NtkError


@contextmanager
def loading(path: str, what: str = "model", look_closer: Callable[[], str | None] = lambda: None) -> Iterator[None]:
    """Raise any error of a library inside this context as a `ModelLoadError`; the original is its cause.

    The same holds for a checkpoint's own code that ends the process. Too little memory, no further file or
    thread, a lost process of a group, a signal, and errors that are explained already are raised unchanged.

    Args:
        path: folder or id of the model.
        what: what is loaded from there.
        look_closer: returns cause and fix where more is known than a library says, after an error.

    Raises:
        ModelLoadError: with the library's words and what to do.
    """
    try:
        yield
    except (Exception, SystemExit) as error:  # any class of error: libraries, and a checkpoint's own code
        if _comes_through(error):
            raise
        reason = damaged_file(path) or look_closer() or f"{_cause(error)}; {_fix(error, path, what)}"
        raise ModelLoadError(f"the {what} of {path} cannot be loaded: {reason}") from error


@contextmanager
def running(name: str) -> Iterator[None]:
    """Raise any error of a library inside this context as a `ModelRunError`; the original is its cause.

    The errors that `loading` leaves unchanged are unchanged here, too.

    Args:
        name: what the model is called, as its class.

    Raises:
        ModelRunError: with the library's words and what to do.
    """
    try:
        yield
    except (Exception, SystemExit) as error:  # as in `loading`
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


@contextmanager
def tokenizing(path: str) -> Iterator[None]:
    """Raise any error of a tokenizer inside this context as a `ModelLoadError`; the original is its cause.

    The errors that `loading` leaves unchanged are unchanged here, too.

    Args:
        path: folder or id of the model.

    Raises:
        ModelLoadError: with the library's words and what to do.
    """
    try:
        yield
    except (Exception, SystemExit) as error:  # tokenizers raises plain exceptions, code of a checkpoint any
        if _comes_through(error):
            raise
        raise ModelLoadError(
            f"the tokenizer of {path} cannot read these texts: {_cause(error)}; correct what its files say, or get the "
            "tokenizer of the model again"
        ) from error


def _comes_through(error: Exception | SystemExit) -> bool:
    if isinstance(error, SystemExit):
        return _is_of_a_signal(error)
    explained = isinstance(error, FinetuneError | NtkError)
    of_the_system = is_out_of_memory(error) or is_limit_of_process(error)
    return explained or of_the_system or is_lost_connection(error) or isinstance(error, _signals())


def _signals() -> tuple[type[Exception], ...]:
    """Return the errors that a signal becomes under torchrun, whose module is loaded where there is one."""
    elastic = sys.modules.get("torch.distributed.elastic.multiprocessing.api")
    return () if elastic is None else (elastic.SignalException,)


def _is_of_a_signal(error: SystemExit) -> bool:
    """Tell whether a signal's handler raised it, as Ray's does in a worker that is told to end."""
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    codes = {getattr(getattr(handler, "__func__", handler), "__code__", None) for handler in handlers} - {None}
    return any(frame.f_code in codes for frame, _ in traceback.walk_tb(error.__traceback__))


def _cause(error: Exception | SystemExit) -> str:
    """Return a library's message in one line, with the class of the error in front where that adds information."""
    said = str(error).strip()
    # Tracebacks of other Python processes and lists of all architectures do not help a reader.
    line = re.sub(r"\s+", " ", said.split("\n\n")[0]).partition(" Model type should be one of ")[0]
    line = line if len(line) <= 300 else line[:300].rstrip() + "..."
    if isinstance(error, SystemExit):
        return f"its code ends the process (SystemExit{': ' * bool(line)}{line})"
    plain = isinstance(error, OSError | ValueError | ImportError) and line
    told = (line if plain else f"{type(error).__name__}{': ' * bool(line)}{line}").rstrip(".")
    place = _own_code(error)
    return told if place is None else f"its own code ({place}) raises {told}"


def _own_code(error: BaseException) -> str | None:
    """Return file and line of a checkpoint's own code that raised an error; None if it was other code."""
    last: tuple[FrameType, int] | None = next(iter(reversed(list(traceback.walk_tb(error.__traceback__)))), None)
    file = None if last is None else Path(last[0].f_code.co_filename)
    if last is None or file is None or _OWN_CODE not in file.parts:
        return None
    return f"{file.name}, line {last[1]}"


def _missing_packages(error: BaseException) -> str | None:
    """Return the packages that an error says are not installed; None if it says nothing of the kind."""
    if not isinstance(error, ImportError):
        return None
    listed = re.search(r"not found in your environment: ([\w.,\- ]+?)[.\s]*(?:Run|$)", str(error))
    advised = re.search(r"(?:pip|need to) install ([\w.\-\[\]]+)", str(error))
    if listed:
        return " ".join(listed[1].replace(",", " ").split())
    if advised:
        return advised[1]
    return error.name.partition(".")[0] if isinstance(error, ModuleNotFoundError) and error.name else None


_TRUST = (
    "its code comes with the checkpoint: if you trust its authors, set model.trust_remote_code: true and give the "
    "command --trust-remote-code"
)

_OWN_CODE = "transformers_modules"
"""Folder into which transformers copies code that comes with a checkpoint."""

_ENDS = "take the call of sys.exit or exit out of the code that comes with the checkpoint, or use another model"

_KNOWN = {
    "trust_remote_code": _TRUST,
    "does not recognize this architecture": "it needs another version of transformers, or code that comes with the "
    "checkpoint",
    "Unrecognized configuration class": "transformers has no such model of this architecture; use one of texts that "
    "has",
    "did not match any variant": "tokenizer.json was written by another version of tokenizers: update it, or save the "
    "tokenizer again with this one",
}
"""Fixes, by words in the errors of transformers."""


def _fix(error: Exception | SystemExit, path: str, what: str) -> str:
    packages = _missing_packages(error)
    if packages:
        return f"install what it needs (pip install {packages}), also where workers run, or use another model"
    known: str | None
    if isinstance(error, SystemExit):
        known = _ENDS
    elif _own_code(error) is not None:
        known = "correct it there, or get the checkpoint again"
    else:
        known = next((fix for said, fix in _KNOWN.items() if said in str(error)), None)
    if known is not None:
        return known
    if isinstance(error, ImportError):
        return "what comes with it was written for other versions of what it needs"
    if what == "tokenizer":
        return "its files belong beside config.json: save the model's own tokenizer there"
    if not isinstance(error, OSError) and Path(path, "config.json").is_file():
        return "correct what its config.json says, or get the checkpoint again"
    return "it must be a folder with config.json and weights, or an id on the hub"


_OUTPUTS = ("last_hidden_state", "logits")
"""What is read of the outputs of a base model and of one with a head."""


def _running_fix(error: Exception | SystemExit) -> str:
    if isinstance(error, SystemExit):
        return _ENDS
    packages = _missing_packages(error)
    if packages:
        return f"install what it needs (pip install {packages}), also where workers run"
    if isinstance(error, AttributeError) and any(name in str(error) for name in _OUTPUTS):
        return f"its passes must return objects of transformers with {' and '.join(_OUTPUTS)}; use another model"
    if "to be chunked" in str(error):
        return "set chunk_size_feed_forward to 0 in its config.json, which changes no number"
    return "try model.attention: eager or model.dtype: float32, or use another architecture"
