import numpy as np
import pytest
import torch

from finetune.data.targets import arrange, code_targets, kernel_outputs, logit_targets, rows_per_example
from finetune.errors import LabelError, OutputModeError


def test_classes_are_coded_as_a_simplex():
    coded = code_targets([0, 2], kind="classification", n_outputs=3, outputs="trace")
    np.testing.assert_array_equal(coded, [[1, -0.5, -0.5], [-0.5, -0.5, 1]])
    full = code_targets([0, 2], kind="classification", n_outputs=3, outputs="full")
    np.testing.assert_array_equal(full, coded.reshape(-1, 1))
    np.testing.assert_allclose(coded.sum(axis=1), 0)


def test_two_classes_are_plus_and_minus_one():
    full = code_targets([0, 1], kind="classification", n_outputs=2, outputs="full")
    np.testing.assert_array_equal(full, [[1], [-1], [-1], [1]])
    margin = code_targets([0, 1], kind="classification", n_outputs=2, outputs="margin")
    np.testing.assert_array_equal(margin, [[-1], [1]])


@pytest.mark.parametrize("outputs", ["full", "trace"])
def test_ratings_stay_what_they_are(outputs):
    np.testing.assert_array_equal(
        code_targets([0.5, -3], kind="regression", n_outputs=1, outputs=outputs), [[0.5], [-3]]
    )


def test_the_margin_is_logit_one_minus_logit_zero():
    logits = torch.tensor([[1.0, 4.0], [2.0, 0.0]])
    assert kernel_outputs(logits, "margin").tolist() == [[3.0], [-2.0]]
    assert kernel_outputs(logits, "full") is logits


@pytest.mark.parametrize("outputs", ["full", "trace", "margin"])
def test_logits_that_meet_their_targets_have_the_outputs_that_the_labels_are_coded_as(outputs):
    labels, task = [0, 1, 1], {"kind": "classification", "n_outputs": 2, "outputs": outputs}
    logits = torch.from_numpy(logit_targets(labels, **task))
    np.testing.assert_array_equal(arrange(kernel_outputs(logits, outputs), outputs), code_targets(labels, **task))


def test_arranged_values_are_example_major():
    values = np.arange(6).reshape(2, 3)
    assert arrange(values, "full").ravel().tolist() == [0, 1, 2, 3, 4, 5]
    assert arrange(values, "full").shape == (6, 1)
    assert arrange(values, "trace").shape == (2, 3)


def test_rows_per_example():
    assert [rows_per_example(2, outputs) for outputs in ("full", "trace", "margin")] == [2, 2, 1]


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_a_margin_needs_two_outputs(n_outputs):
    with pytest.raises(OutputModeError, match=f"but the model has {n_outputs}"):
        kernel_outputs(torch.zeros(2, n_outputs), "margin")


def test_the_number_of_outputs_must_fit_the_kind():
    with pytest.raises(OutputModeError, match="one output, not 2"):
        code_targets([0.5], kind="regression", n_outputs=2, outputs="full")
    with pytest.raises(OutputModeError, match="two outputs or more, not 1"):
        code_targets([0], kind="classification", n_outputs=1, outputs="full")


@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_outside_the_head_is_named(label):
    with pytest.raises(LabelError, match=f"example 1 has label {label}, but the head has 2 outputs"):
        code_targets([0, label], kind="classification", n_outputs=2, outputs="margin")
