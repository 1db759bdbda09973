"""Release of divided models, each of which DeepSpeed would otherwise keep until the process ends."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from finetune.parallel.memory import give_back


@contextmanager
def keeping_no_modules() -> Iterator[None]:
    """Remove, at the end of this context, the modules that DeepSpeed has put on its stack of running modules.

    The stack lives as long as the process. Every model stays at its bottom, and modules that an error interrupts stay
    on it as well; both keep their weights alive. No pass needs these entries, because it puts the model on the stack
    itself.
    """
    from deepspeed.runtime.zero.parameter_offload import FWD_MODULE_STACK

    height = len(FWD_MODULE_STACK)
    try:
        yield
    finally:
        del FWD_MODULE_STACK[height:]


def free_models() -> None:
    """Free the divided models that nothing refers to, and give their memory back; takes about a second.

    DeepSpeed's hooks and a model refer to each other, so that Python would free them at some later time. No process
    waits for another one.
    """
    _clear_caches()
    gc.collect()
    give_back()


def _clear_caches() -> None:
    """Empty the caches of DeepSpeed's methods, which have models as keys; entries still needed are computed again.

    There is one such cache: once a pass repeats the one before, it holds the weights to release after each module.
    """
    from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator

    for method in vars(PartitionedParameterCoordinator).values():
        # The cached function is wrapped in one that records times, and is reachable only through its closure.
        for cell in getattr(method, "__closure__", None) or ():
            if hasattr(cell.cell_contents, "cache_clear"):
                cell.cell_contents.cache_clear()
