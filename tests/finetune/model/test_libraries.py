import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch.distributed.elastic.multiprocessing.api import SignalException

from finetune.errors import LabelWordError, ModelLoadError, ModelRunError
from finetune.libraries.faults import loading, running
from ntk_dist.errors import NonFiniteError


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            ImportError(
                "This modeling file requires the following packages that were not found in your environment: "
                "einops, flash_fft. Run `pip install einops flash_fft`"
            ),
            "pip install einops flash_fft",
        ),
        (ModuleNotFoundError("No module named 'sentencepiece'", name="sentencepiece"), "pip install sentencepiece"),
        (ImportError("Loading it requires optimum (`pip install optimum[exporters]`)"), "optimum[exporters]"),
        (ValueError("... Please pass the argument `trust_remote_code=True` ..."), "model.trust_remote_code: true"),
        (ValueError("Transformers does not recognize this architecture."), "another version of transformers"),
        (KeyError("hidden_act"), "KeyError: 'hidden_act'; it must be a folder with config.json"),
        (AttributeError(), "AttributeError; it must be"),
        (ImportError("cannot import name 'gone' from 'torch'", name="torch"), "written for other versions"),
        (ModuleNotFoundError("No module named 'flash.layers'", name="flash.layers"), "pip install flash)"),
        (OSError(2, "No such file"), "No such file; it must be"),
        (ImportError("You need to install fugashi to use MecabTokenizer."), "pip install fugashi"),
        (Exception("data did not match any variant of untagged enum"), "another version of tokenizers: update it"),
    ],
)
def test_what_a_library_raises_becomes_one_message_with_cause_and_fix(error: Exception, said: str):
    with pytest.raises(ModelLoadError, match="the model of here cannot be loaded: ") as caught, loading("here"):
        raise error
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is error


def test_a_tokenizer_is_called_one_and_long_words_are_cut():
    with pytest.raises(ModelLoadError, match="the tokenizer of here") as caught, loading("here", "tokenizer"):
        raise TypeError("no\n" * 1000 + "\n\nsecond paragraph")
    assert "save the model's own tokenizer there" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "error",
    [
        LabelWordError("has an explanation"),
        NonFiniteError("has one too"),
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        RuntimeError("can't start new thread"),
        OSError(24, "Too many open files", "config.json"),
        RuntimeError("[1] Connection closed by peer"),
        SignalException("told to end", signal.SIGTERM),
    ],
)
@pytest.mark.parametrize("around", [loading, running])
def test_what_others_understand_comes_through(error: Exception, around):
    with pytest.raises(type(error)) as caught, around("here"):
        raise error
    assert caught.value is error


def test_a_model_that_cannot_run_is_named():
    with pytest.raises(ModelRunError, match=r"Some cannot be run .*: IndexError: out of range; "), running("Some"):
        raise IndexError("out of range")


@pytest.mark.parametrize(("around", "kind"), [(loading, ModelLoadError), (running, ModelRunError)])
@pytest.mark.parametrize(("status", "said"), [(3, "SystemExit: 3"), (None, "SystemExit"), ("no GPU", "SystemExit: no")])
def test_code_that_ends_the_process_is_told(
    around: Callable[[str], AbstractContextManager[None]], kind: type[Exception], status: object, said: str
):
    told = rf"its code ends the process \({said}.*take the call of sys\.exit"
    with pytest.raises(kind, match=told) as caught, around("here"):
        sys.exit(status)  # type: ignore[arg-type]
    assert isinstance(caught.value.__cause__, SystemExit)


@pytest.mark.parametrize("around", [loading, running])
def test_a_signal_that_ends_the_process_does(around: Callable[[str], AbstractContextManager[None]]):
    """As in Ray's workers, whose handler of SIGTERM raises SystemExit a call further down."""

    class Handler:
        def told(self, *_: object) -> None:
            sys.exit(1)

    before = signal.signal(signal.SIGTERM, Handler().told)
    try:
        with pytest.raises(SystemExit), around("here"):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
