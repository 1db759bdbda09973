"""Divided models are freed once nobody holds them, and leave nothing that changes those after them."""

import os
import signal
from dataclasses import replace
from pathlib import Path

from tests.finetune.zero.capturing import Case
from tests.finetune.zero.releasing import use_and_drop
from tests.forked_group import run_forked_group
from tests.tiny_models import save_tiny


def test_models_that_were_dropped_leave_nothing_and_one_that_is_held_stays_whole(tmp_path: Path):
    texts = ("the film was great", "a dull plot", "good")
    case = Case(str(save_tiny("bert", tmp_path / "bert")), ("query", "output.dense"), texts)
    cases = dict.fromkeys(("first", "probed", "unused", "drawn", "run again", "broken off", "last"), case)
    cases["run again"] = replace(case, checkpointing=True)
    for seen in run_forked_group(2, use_and_drop, cases, case):
        assert seen.living == [0] * len(cases)
        assert seen.same_rows
        assert seen.held[0] == seen.held[1]
        assert seen.dropped == 0
        assert seen.same_again


def test_a_group_leaves_the_handlers_of_signals_as_they_were():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    assert len(run_forked_group(1, os.getpid)) == 1
    assert [signal.getsignal(number) for number in numbers] == before
