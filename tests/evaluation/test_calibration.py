"""Calibration, confusions and the majority class against scikit-learn and against numbers worked out by hand."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from hf_transfer.evaluation.calibration import measure_calibration
from hf_transfer.evaluation.confusions import majority_baseline, top_confusions
from hf_transfer.evaluation.metrics import ClassificationMetrics


def logits_of(probabilities: list[list[float]]) -> np.ndarray:
    return np.log(np.asarray(probabilities))


def test_by_hand():
    # Two pictures in the bin from 0.6 to 2/3 (one right), one at 0.9 (wrong), one at 1/3 < 0.34 <= 0.4 (right).
    logits = logits_of([[0.62, 0.2, 0.18], [0.64, 0.2, 0.16], [0.05, 0.9, 0.05], [0.34, 0.33, 0.33]])
    found = measure_calibration(logits, np.array([0, 1, 0, 0]))
    assert found.expected_error == pytest.approx((2 * abs(0.5 - 0.63) + 0.9 + (1 - 0.34)) / 4)
    assert found.mean_confidence == pytest.approx((0.62 + 0.64 + 0.9 + 0.34) / 4)
    filled = {round(one.low, 3): (one.count, one.accuracy) for one in found.bins if one.count}
    assert filled == {0.6: (2, 0.5), 0.867: (1, 0.0), 0.333: (1, 1.0)}
    assert [(one.confidence, one.accuracy) for one in found.bins if not one.count] == [(None, None)] * 12


def test_bins_are_those_of_scikit_learn():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 5, 400)
    logits = generator.normal(size=(400, 5))
    logits[np.arange(400), labels] += 2
    found = measure_calibration(logits, labels)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    right = probabilities.argmax(axis=1) == labels
    accuracy, confidence = calibration_curve(right, probabilities.max(axis=1), n_bins=15)
    filled = [one for one in found.bins if one.count]
    assert [one.accuracy for one in filled] == pytest.approx(list(accuracy))
    assert [one.confidence for one in filled] == pytest.approx(list(confidence))
    assert sum(one.count for one in found.bins) == 400


def test_answers_without_doubt_are_counted():
    sure = np.array([[1000.0, 0.0], [1000.0, 0.0]])
    found = measure_calibration(sure, np.array([0, 1]))
    assert found.bins[-1].count == 2
    assert found.expected_error == pytest.approx(0.5)


def test_the_most_frequent_confusions_come_first():
    matrix = np.array([[5, 2, 0], [3, 4, 1], [2, 0, 0]])
    found = top_confusions(("a", "b", "c"), matrix)
    assert [(one.label, one.predicted, one.count) for one in found] == [
        ("b", "a", 3), ("a", "b", 2), ("c", "a", 2), ("b", "c", 1),
    ]  # fmt: skip
    assert found[0].share == pytest.approx(3 / 8)
    assert found[2].share == 1.0
    assert top_confusions(("a", "b", "c"), matrix, most=1) == found[:1]
    assert top_confusions(("a", "b"), np.diag([3, 4])) == ()


@pytest.mark.parametrize(
    ("train_counts", "choice"), [([1, 5, 2], 1), ([4, 4, 4], 0), ([0, 0, 9], 2)], ids=["clear", "tie", "absent"]
)
def test_the_majority_class_is_scored_as_the_model_is(train_counts: list[int], choice: int):
    names, labels = ("a", "b", "c"), np.array([0, 0, 1, 1, 1])
    found = majority_baseline(names, train_counts, labels)
    assert found.label == names[choice]
    expected = ClassificationMetrics(names).compute(np.eye(3)[np.full(5, choice)], labels)
    assert found.metrics == pytest.approx(expected)
