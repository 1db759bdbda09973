"""Meaning of errors: too little memory, no further thread, a broken device; and a check that a device still answers.

CUDA and its libraries have no class of exception for most of this, so that it is read from their words. Nothing here
loads torch: a process that has not loaded it uses no device.
"""

import errno
import gc
import re
import sys

_OUT_OF_MEMORY = re.compile(
    r"not enough memory"
    r"|can(?:'|no)t allocate memory"
    r"|out of memory"
    r"|bad_alloc"
    r"|CU(?:BLAS|DNN|FFT|SOLVER|SPARSE)_\w*ALLOC\w*_FAILED"
    # A library allocates memory for a handle by itself; its messages about a lack of memory vary.
    r"|when calling `(?:cublas|cublasLt|cudnn|cusolver\w*|cusparse)Create\("
    r"|CUDNN_STATUS_NOT_INITIALIZED",
    re.IGNORECASE,
)

_NO_THREAD = re.compile("can't start new thread|resource temporarily unavailable", re.IGNORECASE)

_NO_MORE_FILES = (errno.EMFILE, errno.ENFILE)

_BROKEN = re.compile(
    r"uncorrectable (?:ECC|NVLink) error"
    r"|fallen off the bus"
    r"|GPU is lost"
    r"|GPU requires reset"
    r"|hardware (?:stack )?error"
    r"|unspecified launch failure"
    r"|the launch timed out and was terminated"
    r"|\(s\) is/are busy or unavailable"
    r"|no CUDA-capable device is detected"
    r"|CUDA driver initialization failed"
    r"|system not yet initialized"
    r"|external entity outside of CUDA"
    r"|\bMPS (?:client|server|control daemon)\b"
    # General words count only after the name of the library that says them.
    r"|(?:CUDA error|Cuda failure)[^\n]{0,12}(?:unknown error|initialization error|driver shutting down)",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that there was too little memory, of the host or of a device.

    cuBLAS, cuSOLVER and their like fail so where they are started on a GPU that is full; torch's own allocator has
    then freed nothing for them. A file that cannot be mapped is an `OSError`, from safetensors one without a number.
    """
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError | OSError) and _OUT_OF_MEMORY.search(str(error)) is not None


def is_out_of_threads(error: BaseException) -> bool:
    """Tell whether an error says that this process, or another one, could start no further thread or process."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno == errno.EAGAIN
    return isinstance(error, RuntimeError | OSError) and _NO_THREAD.search(str(error)) is not None


def is_out_of_files(error: BaseException) -> bool:
    """Tell whether a file cannot be opened because too many are open, which says nothing about the file."""
    return isinstance(error, OSError) and error.errno in _NO_MORE_FILES


def is_limit_of_process(error: BaseException) -> bool:
    """Tell whether an error says that no further file or thread was to be had, so that it blames nothing else."""
    return is_out_of_threads(error) or is_out_of_files(error)


def is_broken_device(words: str) -> bool:
    """Tell whether an error's words blame a device, its driver or its link, so that the work may succeed elsewhere."""
    return _BROKEN.search(words) is not None


def device_answers() -> bool:
    """Tell whether the GPU that this process uses still works for it; true without a GPU.

    After an illegal access or a failed assertion in a kernel, CUDA refuses everything that a process asks for later.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return True
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


def give_back_device_memory() -> None:
    """Free the GPU memory that torch caches, so that libraries and other processes on the GPU can use it."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()
