"""The order in which ready stages are begun: those that share what a worker holds stay with one worker."""

from orchestrator.engine.ready_stages import ReadyStages
from orchestrator.stages.gram import GRAM
from orchestrator.store.stage import Stage, Together


def stage(name: str, key: str = "") -> Stage:
    return Stage(GRAM, name, {}, (), Together(key, 2) if key else None)


def names(*taken: Stage | None) -> list[str | None]:
    return [each and each.parameters for each in taken]


def test_workers_get_different_keys_and_each_goes_on_with_its_own():
    a, b = ([stage(f"{key}{n}", key) for n in range(3)] for key in "ab")
    ready = ReadyStages([*a, *b])
    assert names(ready.take(), ready.take(), ready.take()) == ["a0", "b0", None]
    assert len(ready) == 4
    ready.ended(b[0])
    assert names(ready.take(), ready.take()) == ["b1", None]
    ready.ended(a[0])
    assert names(ready.take()) == ["a1"]


def test_stages_without_a_key_fill_the_other_workers():
    ready = ReadyStages([stage("a0", "a"), stage("a1", "a"), stage("x"), stage("y")])
    assert names(ready.take(), ready.take(), ready.take(), ready.take()) == ["a0", "x", "y", None]
    assert len(ready) == 1


def test_what_another_run_computes_lets_other_keys_go_first():
    first = stage("a0", "a")
    ready = ReadyStages([first, stage("a1", "a"), stage("b0", "b")])
    assert names(ready.take()) == ["a0"]
    ready.ended(first, elsewhere=True)
    assert names(ready.take(), ready.take(), ready.take()) == ["b0", "a1", None]


def test_a_stage_that_is_tried_again_waits_with_its_key():
    first = stage("a0", "a")
    ready = ReadyStages([first, stage("a1", "a")])
    ready.take()
    ready.ended(first)
    ready.add([first])
    taken = ready.take()
    assert names(taken) == ["a1"]
    assert ready.take() is None
    ready.ended(taken)
    assert names(ready.take()) == ["a0"]
    assert not ready


def test_what_comes_first_keeps_its_order():
    ready = ReadyStages([stage("x")])
    ready.add_first([stage("a0", "a"), stage("y"), stage("a1", "a")])
    taken = ready.take()
    assert names(taken, ready.take()) == ["a0", "y"]
    ready.ended(taken)
    assert names(ready.take(), ready.take()) == ["a1", "x"]


def test_the_next_of_a_key_goes_before_all_others():
    a = [stage(f"a{n}", "a") for n in range(2)]
    ready = ReadyStages([stage("x"), *a])
    assert names(ready.take_with_key("a"), ready.take_with_key("a"), ready.take_with_key("b")) == ["a0", None, None]
    ready.add_first([stage("y")])
    ready.ended(a[0])
    assert names(ready.take_with_key("a"), ready.take(), ready.take(), ready.take()) == ["a1", "y", "x", None]
    assert len(ready) == 0
