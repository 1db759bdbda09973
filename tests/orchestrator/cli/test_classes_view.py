"""The line about a class that a training set may lack."""

from dataclasses import replace

import pytest

from orchestrator.cli.classes_view import classes_said
from tests.orchestrator.sweeps import plan_of, survey_of


@pytest.mark.parametrize(
    ("sizes", "n_train", "advice"),
    [
        ((90, 5, 5), 9, "task.sampling: balanced draws as many of each class"),
        ((98, 1, 1), 9, "raise grid.n_train"),  # of the smallest class a balanced draw would need three
        ((4,) * 25, 20, "raise grid.n_train"),  # a balanced draw has no example of some classes
    ],
)
def test_a_balanced_draw_is_advised_where_there_can_be_one(sizes: tuple[int, ...], n_train: int, advice: str):
    survey = replace(survey_of(n_outputs=len(sizes), pool=100), class_sizes=sizes)
    (said,) = (line for line in classes_said(plan_of({"grid.n_train": [n_train]}, survey=survey)) if "may draw" in line)
    assert said.endswith(f"a seed may draw none; {advice}")
