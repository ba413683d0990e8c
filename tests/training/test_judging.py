"""Scores of evaluations, and where they no longer rise."""

from hf_transfer.training.judging import judged_evaluations, plateaus


def test_plateaus_are_counted_anew_after_each():
    scores = [0.5, 0.4, 0.5, 0.6, 0.6, 0.1, 0.1, 0.2, 0.7]
    evaluations = [(10 * (number + 1), score) for number, score in enumerate(scores)]
    assert plateaus(evaluations, 2) == [30, 60, 80]
    assert plateaus(evaluations, 1) == [20, 30, 50, 60, 70, 80]
    assert plateaus([], 1) == []


def test_evaluations_are_judged_by_the_metric_of_the_best_model():
    log = [
        {"loss": 1.0, "step": 5},
        {"eval_loss": 0.5, "eval_accuracy": 0.9, "step": 5},
        {"eval_loss": 0.7, "step": 9},
    ]
    assert judged_evaluations(log, None, None) == [(5, -0.5), (9, -0.7)]
    assert judged_evaluations(log, "accuracy", None) == [(5, 0.9)]
    assert judged_evaluations(log, "eval_loss", False) == [(5, -0.5), (9, -0.7)]
