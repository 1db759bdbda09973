"""Processes that all do one thing at the same moment, as the workers of many allocations would."""

from collections.abc import Callable
from typing import Any

from tests.served import SERVED

SECONDS = 120


def at_once(n: int, do: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Call `do(number, meet, *arguments)` in `n` processes and return what they returned, in the order of numbers.

    `do` is a function of a module; `meet()` waits until all processes have called it. An error comes back as its text.
    """
    barrier, answers = SERVED.Barrier(n), SERVED.Queue()
    processes = [
        SERVED.Process(target=_child, args=(barrier, answers, do, number, arguments), daemon=True)
        for number in range(n)
    ]
    for process in processes:
        process.start()
    found = dict(answers.get(timeout=SECONDS) for _ in processes)
    for process in processes:
        process.join(SECONDS)
    return [found[number] for number in range(n)]


def in_child(do: Callable[..., Any], *arguments: Any) -> Any:
    """Call `do(*arguments)` in a process of its own that then ends, and return what it returned."""
    return at_once(1, _alone, do, arguments)[0]


def _alone(_number: int, _meet: Any, do: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return do(*arguments)


def _child(barrier: Any, answers: Any, do: Callable[..., Any], number: int, arguments: tuple[Any, ...]) -> None:
    try:
        answers.put((number, do(number, lambda: barrier.wait(SECONDS), *arguments)))
    except Exception as error:
        answers.put((number, repr(error)))
