"""Time that is left, from what is finished, from what runs, and from the plan's estimate."""

import pytest

from orchestrator.results.time_left import Left, RunningStage, time_left


def test_kinds_with_finished_stages_count_with_their_means():
    assert time_left({"gram": 2, "solve": 4}, {"gram": (5.0, 2), "solve": (15.0, 1)}, {}) == Left(70.0, ())


def test_without_an_estimate_what_is_not_measured_makes_the_time_unknown():
    assert time_left({"gram": 2, "solve": 4}, {"gram": (5.0, 2)}, {}) == Left(None, ("solve",))


def test_it_is_there_from_the_first_stage_on_and_trivial_kinds_do_not_count():
    estimates = {"gram": 10.0, "finetune": 60.0}
    assert time_left({"dataset": 1, "gram": 2, "finetune": 3}, {}, estimates).seconds == 200.0
    # a stage that takes no time says nothing about the others
    assert time_left({"gram": 2, "finetune": 3}, {"dataset": (0.1, 1)}, estimates).seconds == 200.0


def test_measured_kinds_correct_the_estimates_of_others():
    estimates = {"capture": 2.0, "gram": 10.0, "finetune": 60.0}
    means = {"capture": (8.0, 10), "gram": (30.0, 1)}  # 110 s instead of 30
    found = time_left({"gram": 1, "finetune": 3}, means, estimates)
    assert found.seconds == pytest.approx(30.0 + 180.0 * 110 / 30)


def test_trivial_kinds_do_not_correct_the_estimates_of_others():
    estimates = {"batching": 0.1, "gram": 10.0, "finetune": 60.0}
    found = time_left({"gram": 2, "finetune": 3}, {"batching": (7.0, 2)}, estimates)
    assert found.seconds == pytest.approx(20.0 + 180.0)


def test_what_runs_counts_as_far_as_it_is_and_its_speed_tells_of_its_kind():
    going = [RunningStage("finetune", 12.0, 0.25), RunningStage("gram", 4.0), RunningStage("gram", 400.0)]
    found = time_left({"gram": 3, "finetune": 4}, {"gram": (10.0, 5)}, {"finetune": 1000.0}, going)
    # trainings take 48 s, of which 12 are over; of two tiles 4 s are over and all
    assert found.seconds == pytest.approx(30.0 - 4.0 - 10.0 + 4 * 48.0 - 12.0)
    early = time_left({"finetune": 2}, {}, {"finetune": 100.0}, [RunningStage("finetune", 1.0, 0.001)])
    assert early.seconds == pytest.approx(2 * 100.0 - 0.1)  # too early to tell


def test_a_slower_training_than_those_before_it_counts_at_its_own_speed():
    slow = RunningStage("finetune", 90.0, 0.3)  # 300 s, where those before it took 10 s
    found = time_left({"finetune": 3}, {"finetune": (10.0, 2)}, {}, [slow])
    assert found.seconds == pytest.approx(0.7 * 300 + 2 * (2 * 10 + 300) / 3)
    later = time_left({"finetune": 3}, {"finetune": (10.0, 2)}, {}, [RunningStage("finetune", 180.0, 0.6)])
    assert later.seconds == pytest.approx(found.seconds - 0.3 * 300)


def test_a_training_that_another_process_began_counts_at_the_speed_of_this_one():
    resumed = RunningStage("finetune", 10.0, 0.9, begun_with=0.8)
    assert time_left({"finetune": 1}, {}, {}, [resumed]).seconds == pytest.approx(10.0)
    just = RunningStage("finetune", 1.0, 0.801, begun_with=0.8)
    assert time_left({"finetune": 1}, {"finetune": (50.0, 1)}, {}, [just]).seconds == pytest.approx(0.199 * 50)


def test_an_estimate_that_nothing_has_corrected_says_nothing_once_the_run_has_lasted_longer():
    estimates = {"dataset": 0.01, "capture": 3.0, "solve": 1.0}
    left = {"capture": 2, "solve": 1}
    started = {"dataset": (0.02, 1)}
    assert time_left(left, started, estimates, [RunningStage("capture", 5.0)], elapsed=3.0).seconds == 4.0
    assert time_left(left, started, estimates, [RunningStage("capture", 60.0)], elapsed=60.0) == Left(
        None, ("capture", "solve")
    )
    measured = started | {"capture": (6.0, 1)}
    assert time_left({"capture": 1, "solve": 1}, measured, estimates, elapsed=60.0).seconds == 8.0


def test_nothing_is_left_of_nothing():
    assert time_left({}, {}, {}) == Left(0.0, ())
