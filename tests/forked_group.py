"""Process groups whose processes have loaded the libraries."""

from collections.abc import Callable
from typing import Any
from unittest import mock

from finetune.parallel import launching
from tests import served


def run_forked_group(size: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Run a function as `run_group` does, in processes that are forked (see `tests.served`)."""
    with mock.patch.object(launching, "START_METHOD", served.SERVED.get_start_method()):
        return launching.run_group(size, work, *arguments)
