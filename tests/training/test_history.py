"""One row per evaluation, with the mean training loss since the row before."""

import pytest

from hf_transfer.training.history import epoch_history


def test_rows_join_training_log_and_evaluations():
    log = [
        {"loss": 2.0, "step": 10, "epoch": 0.5, "learning_rate": 0.1, "learning_rate/head": 0.3},
        {"loss": 1.0, "step": 15, "epoch": 0.75, "learning_rate": 0.2, "learning_rate/head": 0.4},
        {"eval_loss": 0.9, "eval_accuracy": 0.5, "eval_runtime": 3.0, "step": 20, "epoch": 1.0},
        {"eval_loss": 0.8, "eval_accuracy": 0.6, "eval_samples_per_second": 3.0, "step": 40, "epoch": 2.0},
        {"train_runtime": 3.0, "train_loss": 1.0, "step": 40, "epoch": 2.0},
    ]
    first, second = epoch_history(log)
    assert first == {
        "epoch": 1.0,
        "step": 20,
        "train_loss": pytest.approx((10 * 2.0 + 5 * 1.0) / 15),
        "learning_rate": 0.2,
        "learning_rate/head": 0.4,
        "eval_loss": 0.9,
        "eval_accuracy": 0.5,
    }
    assert "train_loss" not in second
    assert second["eval_accuracy"] == 0.6
