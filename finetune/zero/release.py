"""Release of sharded models, each of which DeepSpeed would otherwise keep until the process ends."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from finetune.parallel.deepspeed_private import clear_caches, running_modules
from finetune.parallel.memory import give_back


@contextmanager
def keeping_no_modules() -> Iterator[None]:
    """Remove, at the end of this context, the modules that DeepSpeed has put on its stack of running modules.

    The stack lives as long as the process. Every model stays at its bottom, and modules that an error interrupts stay
    on it as well; both keep their weights alive. No pass needs these entries, because it puts the model on the stack
    itself.
    """
    running = running_modules()
    height = len(running)
    try:
        yield
    finally:
        del running[height:]


def free_models() -> None:
    """Free the sharded models that nothing refers to, and give their memory back; takes about a second.

    DeepSpeed's hooks and a model refer to each other, so that Python would free them at some later time. No process
    waits for another one.
    """
    clear_caches()
    gc.collect()
    give_back()
