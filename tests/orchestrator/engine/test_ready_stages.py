"""The order in which ready stages are begun: those that share what a worker holds stay with one worker."""

from collections.abc import Sequence

from orchestrator.engine.ready_stages import ReadyStages
from orchestrator.stages.gram import GRAM
from orchestrator.store.stage import Stage, Together


def stage(name: str, key: str = "") -> Stage:
    return Stage(GRAM, name, {}, (), Together(key, 2) if key else None)


def line_of(stages: Sequence[Stage]) -> ReadyStages:
    """Return a line in which stages have places in their order."""
    return ReadyStages(stages, {each.stage_id: place for place, each in enumerate(stages)})


def names(*taken: Stage | None) -> list[str | None]:
    return [each and each.parameters for each in taken]


def test_workers_get_different_keys_and_each_goes_on_with_its_own():
    a, b = ([stage(f"{key}{n}", key) for n in range(3)] for key in "ab")
    ready = line_of([*a, *b])
    assert names(ready.take(), ready.take(), ready.take()) == ["a0", "b0", None]
    assert len(ready) == 4
    ready.ended(b[0])
    assert names(ready.take(), ready.take()) == ["b1", None]
    ready.ended(a[0])
    assert names(ready.take()) == ["a1"]


def test_stages_without_a_key_fill_the_other_workers():
    ready = line_of([stage("a0", "a"), stage("a1", "a"), stage("x"), stage("y")])
    assert names(ready.take(), ready.take(), ready.take(), ready.take()) == ["a0", "x", "y", None]
    assert len(ready) == 1


def test_what_another_run_computes_lets_other_keys_go_first():
    first = stage("a0", "a")
    ready = line_of([first, stage("a1", "a"), stage("b0", "b")])
    assert names(ready.take()) == ["a0"]
    ready.ended(first, elsewhere=True)
    assert names(ready.take(), ready.take(), ready.take()) == ["b0", "a1", None]


def test_a_stage_that_is_tried_again_waits_with_its_key():
    first = stage("a0", "a")
    ready = line_of([first, stage("a1", "a")])
    ready.take()
    ready.ended(first)
    ready.add([first])
    taken = ready.take()
    assert names(taken) == ["a1"]
    assert ready.take() is None
    ready.ended(taken)
    assert names(ready.take()) == ["a0"]
    assert not ready


def test_what_is_ready_later_takes_its_place_in_the_line():
    x, y, z = stage("x"), stage("y"), stage("z")
    places = {each.stage_id: place for place, each in enumerate((x, y, z))}
    ready = ReadyStages([z], places)
    ready.add([y, x])
    assert names(ready.take(), ready.take()) == ["x", "y"]
    ready.add([x])  # it is tried again
    assert names(ready.take(), ready.take(), ready.take()) == ["x", "z", None]


def test_what_has_to_be_computed_again_goes_before_all_others():
    x, lost = stage("x"), stage("lost")
    ready = ReadyStages([x], {x.stage_id: 0})
    ready.add([lost])
    assert names(ready.take(), ready.take()) == ["lost", "x"]


def test_a_key_has_the_place_of_its_first_stage():
    a, x, y = [stage(f"a{n}", "a") for n in range(2)], stage("x"), stage("y")
    ready = ReadyStages([], {each.stage_id: place for place, each in enumerate((x, *a, y))})
    ready.add([y, *a, x])
    taken = [ready.take(), ready.take()]
    assert names(*taken) == ["x", "a0"]
    assert taken[1] is not None
    ready.ended(taken[1])
    assert names(ready.take(), ready.take(), ready.take()) == ["a1", "y", None]


def test_the_next_of_a_key_goes_before_all_others():
    a = [stage(f"a{n}", "a") for n in range(2)]
    ready = line_of([stage("x"), *a])
    assert names(ready.take_with_key("a"), ready.take_with_key("a"), ready.take_with_key("b")) == ["a0", None, None]
    ready.ended(a[0])
    assert names(ready.take_with_key("a"), ready.take(), ready.take()) == ["a1", "x", None]
    assert len(ready) == 0
