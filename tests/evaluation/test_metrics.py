"""The shipped metrics against numbers worked out by hand, and without network or shared files."""

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import EvalPrediction

from hf_transfer.evaluation.metrics import SHIPPED, ClassificationMetrics

REPOSITORY = Path(__file__).parents[2]


def logits_for(predictions: list[int], num_classes: int) -> np.ndarray:
    """Returns logits whose highest is at the prediction."""
    return np.eye(num_classes, dtype=np.float32)[predictions]


def test_three_classes_by_hand():
    # true        0 0 0 0 1 1 2 2
    # predicted   0 0 0 1 1 2 2 0
    metrics = ClassificationMetrics(["a", "b", "c"])
    found = metrics.compute(logits_for([0, 0, 0, 1, 1, 2, 2, 0], 3), np.array([0, 0, 0, 0, 1, 1, 2, 2]))
    assert found == {
        "accuracy": pytest.approx(5 / 8),
        # recalls 3/4, 1/2, 1/2
        "balanced_accuracy": pytest.approx((3 / 4 + 1 / 2 + 1 / 2) / 3),
        # 2 TP / (2 TP + FP + FN): 6/(6+1+1), 2/(2+1+1), 2/(2+1+1)
        "macro_f1": pytest.approx((6 / 8 + 2 / 4 + 2 / 4) / 3),
    }


def test_a_class_that_is_only_predicted_has_no_recall_but_an_f1_of_zero():
    # Class 2 never occurs and is predicted once; class 3 occurs nowhere and counts nowhere.
    metrics = ClassificationMetrics(["a", "b", "c", "d"])
    found = metrics.compute(logits_for([0, 0, 1, 2], 4), np.array([0, 0, 1, 1]))
    assert found["balanced_accuracy"] == pytest.approx((1 + 1 / 2) / 2)
    assert found["macro_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_a_class_that_is_never_predicted_counts_as_zero():
    found = ClassificationMetrics(["a", "b"]).compute(logits_for([0] * 10, 2), np.array([0] * 9 + [1]))
    assert found["accuracy"] == pytest.approx(0.9)
    assert found["balanced_accuracy"] == pytest.approx(0.5)
    assert found["macro_f1"] == pytest.approx((18 / 19 + 0) / 2)


@pytest.mark.parametrize(("num_classes", "expected"), [(2, False), (5, False), (6, True)])
def test_top5_only_where_it_says_something(num_classes: int, expected: bool):
    metrics = ClassificationMetrics([str(index) for index in range(num_classes)])
    found = metrics.compute(logits_for([0, 1], num_classes), np.array([0, 1]))
    assert ("top5_accuracy" in found) is expected
    assert set(found) == set(SHIPPED[: 4 if expected else 3])


def test_top5_by_hand():
    ranking = np.array([[6, 5, 4, 3, 2, 1, 0], [6, 5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5, 6]], dtype=np.float32)
    metrics = ClassificationMetrics(list("abcdefg"))
    # Ranked fifth, ranked sixth, ranked first.
    assert metrics.compute(ranking, np.array([4, 5, 6]))["top5_accuracy"] == pytest.approx(2 / 3)


def test_equal_scores_go_to_the_first_labels_in_top5_as_in_argmax():
    # Half of 200 labels share the highest score; sorting short or level rows is stable by accident.
    row = np.random.default_rng(0).integers(0, 2, 200).astype(np.float32)
    highest = np.flatnonzero(row)
    metrics = ClassificationMetrics([str(index) for index in range(200)])
    found = metrics.compute(np.stack([row] * 7), highest[:7])
    assert found["accuracy"] == pytest.approx(1 / 7)
    assert found["top5_accuracy"] == pytest.approx(5 / 7)


def test_results_are_plain_floats():
    found = ClassificationMetrics(list("abcdef")).compute(logits_for([0, 1], 6), np.array([0, 1]))
    assert {type(value) for value in found.values()} == {float}


def test_trainer_may_call_it_with_logits_or_with_a_tuple():
    metrics = ClassificationMetrics(["a", "b"])
    logits, labels = logits_for([0, 1, 1, 1], 2), np.array([0, 1, 0, 1])
    plain = metrics(EvalPrediction(predictions=logits, label_ids=labels))
    assert plain["accuracy"] == 0.75
    assert metrics(EvalPrediction(predictions=(logits, np.zeros(4)), label_ids=labels)) == plain


@pytest.mark.parametrize("shape", [(0, 2), (4, 3), (3, 2), (4,)])
def test_wrong_shapes_are_refused(shape: tuple[int, ...]):
    labels = np.zeros(shape[0] if shape[0] == 0 else 4, dtype=int)
    with pytest.raises(ValueError, match="shape"):
        ClassificationMetrics(["a", "b"]).compute(np.zeros(shape), labels)


def test_random_numbers_of_the_training_are_left_alone():
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    metrics = ClassificationMetrics(list("abcdef"))
    metrics.compute(logits_for([0, 1, 2], 6), np.array([0, 1, 1]))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]


COMPUTE = """
import socket, sys
def refuse(*_, **__):
    raise AssertionError("a metric reached for the network")
socket.socket.connect = socket.getaddrinfo = refuse
import numpy as np
from hf_transfer.evaluation.metrics import ClassificationMetrics
metrics = ClassificationMetrics(list("abcdef"))
for repeat in range(20):
    labels = np.random.default_rng(repeat).integers(0, 6, 200)
    found = metrics.compute(np.eye(6)[(labels + (np.arange(200) < 50)) % 6], labels)
    assert abs(found["accuracy"] - 0.75) < 1e-12, found
print(sorted(found))
"""


def test_two_processes_at_once_without_network_in_an_empty_cache(tmp_path: Path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", COMPUTE], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=200) for process in processes]
    for process, (out, err) in zip(processes, answers, strict=True):
        assert process.returncode == 0, err
        assert out.strip() == str(sorted(SHIPPED))
    # Nothing was written that another process could wait for or read: the folders of the metrics are empty.
    assert [path for path in (tmp_path / "metrics").rglob("*") if path.is_file()] == []
