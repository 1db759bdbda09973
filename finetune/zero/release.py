"""Letting go of divided models: DeepSpeed keeps every one that it was given, until the process ends."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from finetune.parallel.memory import give_back


@contextmanager
def keeping_no_modules() -> Iterator[None]:
    """Have DeepSpeed forget at the end the modules that it has put on its stack of running ones inside.

    The stack belongs to the process. Every model goes to its bottom for good, and what an error breaks off stays on it,
    and with either the weights; no pass needs them there, as it puts the model on the stack itself.
    """
    from deepspeed.runtime.zero.parameter_offload import FWD_MODULE_STACK

    height = len(FWD_MODULE_STACK)
    try:
        yield
    finally:
        del FWD_MODULE_STACK[height:]


def free_models() -> None:
    """Free the divided models that nobody holds, and give their memory back; about a second.

    DeepSpeed's hooks and a model refer to each other, so that Python would free them at some later time. No process
    waits for another one.
    """
    _clear_caches()
    gc.collect()
    give_back()


def _clear_caches() -> None:
    """Empty the caches of DeepSpeed's methods, which have models as keys; what is still needed is computed again.

    There is one: once a pass has gone as the one before, it keeps which weights to let go of after each module.
    """
    from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator

    for method in vars(PartitionedParameterCoordinator).values():
        # The cache is inside a function that marks times, and has no name of its own.
        for cell in getattr(method, "__closure__", None) or ():
            if hasattr(cell.cell_contents, "cache_clear"):
                cell.cell_contents.cache_clear()
