"""The loss against sums done by hand."""

import math

import pytest
import torch

from hf_transfer.training.loss import balanced_class_weights, classification_loss

LOGITS = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
LABELS = torch.tensor([0, 2])
FIRST = -math.log(math.exp(2) / (math.exp(2) + 2))
SECOND = -math.log(1 / (math.exp(1) + 2))


def test_sum_is_divided_by_the_images_of_the_step_not_of_the_batch():
    assert classification_loss(LOGITS, LABELS, 8).item() == pytest.approx((FIRST + SECOND) / 8, rel=1e-6)


def test_soft_labels_equal_hard_ones_where_they_are_one_hot():
    soft = torch.nn.functional.one_hot(LABELS, 3).float()
    for smoothing in (0.0, 0.1):
        hard = classification_loss(LOGITS, LABELS, 2, label_smoothing=smoothing)
        assert classification_loss(LOGITS, soft, 2, label_smoothing=smoothing).item() == pytest.approx(hard.item())


def test_smoothing_spreads_the_target():
    logs = torch.log_softmax(LOGITS, -1)
    expected = -(0.9 * (logs[0, 0] + logs[1, 2]) + 0.1 * logs.mean(-1).sum()) / 2
    assert classification_loss(LOGITS, LABELS, 2, label_smoothing=0.1).item() == pytest.approx(expected.item())


def test_weights_multiply_each_image():
    weights = torch.tensor([0.5, 1.0, 2.0])
    expected = (0.5 * FIRST + 2.0 * SECOND) / 2
    assert classification_loss(LOGITS, LABELS, 2, class_weights=weights).item() == pytest.approx(expected, rel=1e-6)


def test_half_precision_logits_are_summed_in_float32():
    many = LOGITS.half().repeat(4096, 1)
    loss = classification_loss(many, LABELS.repeat(4096), 8192)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx((FIRST + SECOND) / 2, rel=1e-3)


def test_balanced_weights_average_to_one_over_the_images():
    counts = [10, 30, 0, 60]
    weights = balanced_class_weights(counts)
    assert weights.tolist() == pytest.approx([100 / 30, 100 / 90, 0.0, 100 / 180])
    assert sum(count * weight for count, weight in zip(counts, weights.tolist(), strict=True)) == pytest.approx(100)
