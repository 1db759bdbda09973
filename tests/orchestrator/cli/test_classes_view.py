"""The lines about classes: their sizes, and a class that a training set may lack."""

from dataclasses import replace

import pytest

from finetune.data.left_out import LeftOut
from orchestrator.cli.classes_view import classes_said
from orchestrator.cli.misspelled_labels import misspelled_said
from tests.orchestrator.sweeps import plan_of, survey_of


@pytest.mark.parametrize(
    ("sizes", "n_train", "advice"),
    [
        ((90, 5, 5), 9, "task.sampling: balanced draws as many of each class"),
        ((194, 3, 3), 12, "raise grid.n_train"),  # of the smallest class a balanced draw would need four
        (
            (98, 1, 1),
            9,
            "there is one such example among 100, which no larger grid.n_train helps: give class 1 more, another class "
            "or null in task.labels",
        ),
        ((4,) * 25, 20, "raise grid.n_train"),  # a balanced draw has no example of some classes
    ],
)
def test_a_balanced_draw_is_advised_where_there_can_be_one(sizes: tuple[int, ...], n_train: int, advice: str):
    survey = replace(survey_of(n_outputs=len(sizes), pool=100), class_sizes=sizes)
    (said,) = (line for line in classes_said(plan_of({"grid.n_train": [n_train]}, survey=survey)) if "may draw" in line)
    assert said.endswith(f"a seed may draw none; {advice}")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ((), "8,923 of class 0 (45 %), 11,043 of class 1 (55 %)"),
        ((("0", 0), ("1", 1)), "8,923 of class 0 (45 %), 11,043 of class 1 (55 %)"),
        (
            (("2024-01-10", 0), ("bad", 1), ("poor", 1)),
            '8,923 of class 0 "2024-01-10" (45 %), 11,043 of class 1 "bad" or "poor" (55 %)',
        ),
    ],
)
def test_number_name_and_size_of_a_class_do_not_run_together(labels: tuple[tuple[str, int], ...], said: str):
    survey = replace(survey_of(n_outputs=2, pool=19_966), class_sizes=(8_923, 11_043), labels=labels)
    assert classes_said(plan_of(survey=survey))[0] == f"classes among the 19,966 examples of split train: {said}"


def test_of_many_classes_the_largest_and_the_smallest_are_listed():
    sizes = (1, *range(100, 1200, 100))
    survey = replace(survey_of(n_outputs=len(sizes), pool=sum(sizes)), class_sizes=sizes)
    assert classes_said(plan_of(survey=survey))[0] == (
        "12 classes among the 6,601 examples of split train; the largest: 1,100 of class 11 (17 %), 1,000 of class 10 "
        "(15 %), 900 of class 9 (14 %); the smallest: 1 of class 0 (under 1 %), 100 of class 1 "
        "(2 %), 200 of class 2 (3 %)"
    )


def test_a_rare_label_with_nearly_the_letters_of_another_is_asked_about():
    labels = (("negative", 0), ("neutral", 1), ("postive", 2), ("positive", 3), ("", None))
    survey = replace(survey_of(n_outputs=4, pool=121), class_sizes=(40, 30, 1, 50), labels=labels)
    assert (
        "label `postive` stands once; did you mean `positive`? Then write task.labels: {negative: 0, neutral: 1, "
        "postive: 2, positive: 2, '': null}" in classes_said(plan_of(survey=survey))
    )


@pytest.mark.parametrize(
    ("labels", "sizes"),
    [
        ((("negative", 0), ("postive", 1), ("positive", 2)), (40, 6, 50)),  # not rare
        ((("negative", 0), ("postive", 1), ("positive", 2)), (40, 0, 50)),  # there is none
        ((("bad", 0), ("cat", 1), ("car", 2)), (40, 1, 50)),  # not alike
        ((("topic 1", 0), ("topic 2", 1), ("topic 3", 2)), (40, 50, 1)),  # they count
        ((("other", 0), ("relevant", 1), ("irrelevant", 2)), (40, 50, 1)),  # the opposite
        ((("positive", 0), ("postive", 1)), (50, 1)),  # one class would be left
        ((("negative", 0), ("postive", 1), ("positive", 1)), (50, 1)),  # brought together already
    ],
)
def test_other_rare_labels_are_left_alone(labels: tuple[tuple[str, int], ...], sizes: tuple[int, ...]):
    assert misspelled_said(labels, sizes) == ""


def test_rows_that_are_left_out_are_counted():
    left_out = LeftOut((("", 3), ("unsure", 1_200)), blank=2, repeated=6)
    survey = replace(survey_of(n_outputs=2, pool=40), class_sizes=(20, 20), left_out=left_out)
    assert classes_said(plan_of(survey=survey))[1] == (
        'rows left out: 3 with no label, 1,200 with label "unsure", 2 with a blank text, 6 with a text that another '
        "one has"
    )
    of_numbers = replace(survey_of(n_outputs=1, pool=40), left_out=LeftOut(blank=1))
    assert classes_said(plan_of({"task.kind": "regression"}, survey=of_numbers)) == [
        "rows left out: 1 with a blank text"
    ]
