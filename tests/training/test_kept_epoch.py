"""The weights that are kept: the best evaluation's, or the last good one's."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageClassification

from hf_transfer.config import FinetuneConfig
from hf_transfer.training.kept_epoch import keeps_last_good, kept_metric, standard_error
from tests.training.tiny_run import tiny_model, tiny_trainer

STEPS_PER_EPOCH = 5


class Told:
    """Accuracies that are told, one for each evaluation."""

    def __init__(self, *accuracies: float):
        self.left = list(accuracies)

    def __call__(self, _: Any) -> dict[str, float]:
        return {"accuracy": self.left.pop(0)}


def trained(folder: Path, accuracies: tuple[float, ...], keeps: bool, resume: Path | None = None, done: int = 0):
    """Trains an epoch for each accuracy; of 9 validation pictures."""
    model = tiny_model("vit")
    trainer = tiny_trainer(
        model,
        folder,
        compute_metrics=Told(*accuracies[done:]),
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        greater_is_better=True,
        num_train_epochs=len(accuracies),
    )
    trainer.keeps_last_good = keeps
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    return trainer, model


def test_the_standard_error_is_that_of_a_share():
    assert standard_error(0.5, 100) == pytest.approx(0.05)
    assert standard_error(1.0, 100) == 0.0


@pytest.mark.parametrize(
    ("accuracies", "kept"),
    [
        # A standard error of 0.9 is 0.1 here.
        ((0.5, 0.9, 0.7, 0.85, 0.75), 4),
        ((0.5, 0.9, 0.7, 0.6), 2),
        ((0.9, 0.82, 1.0, 0.9), 3),
        ((1.0, 0.9, 1.0, 0.9), 3),
    ],
)
def test_the_last_within_a_standard_error_of_the_highest_is_kept(accuracies, kept: int, tmp_path: Path):
    trainer, model = trained(tmp_path, accuracies, keeps=True)
    assert trainer.state.best_global_step == kept * STEPS_PER_EPOCH
    assert trainer.state.best_metric == max(accuracies)
    saved = AutoModelForImageClassification.from_pretrained(tmp_path / f"checkpoint-{kept * STEPS_PER_EPOCH}")
    for name, tensor in saved.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_otherwise_the_best_is_kept_and_of_equal_ones_the_first(tmp_path: Path):
    trainer, _ = trained(tmp_path, (0.5, 0.9, 0.7, 0.9), keeps=False)
    assert trainer.state.best_global_step == 2 * STEPS_PER_EPOCH


def test_a_resumed_run_keeps_the_same(tmp_path: Path):
    accuracies = (0.5, 0.9, 0.7, 0.85)
    whole, expected = trained(tmp_path / "whole", accuracies, keeps=True)
    first = tmp_path / "first"
    trained(first, accuracies[:3], keeps=True)
    resumed, model = trained(first, accuracies, keeps=True, resume=first / "checkpoint-15", done=3)
    assert resumed.state.best_global_step == whole.state.best_global_step == 4 * STEPS_PER_EPOCH
    for name, tensor in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("strategy", "training", "expected"),
    [
        ("feature-extraction", {}, True),
        ("feature-extraction", {"metric_for_best_model": "accuracy"}, False),
        ("feature-extraction", {"metric_for_best_model": "loss"}, False),
        ("feature-extraction", {"greater_is_better": False}, False),
        ("partial", {}, False),
        ("full", {}, False),
    ],
)
def test_only_a_head_keeps_the_last_good_and_only_by_default(strategy: str, training: dict, expected: bool):
    config = FinetuneConfig(model="m", dataset="d", strategy=strategy, training=training)
    args: Any = SimpleNamespace(load_best_model_at_end=True)
    assert keeps_last_good(config, args) is expected
    args.load_best_model_at_end = False
    assert keeps_last_good(config, args) is False


def test_the_metric_is_that_of_the_step():
    history = [
        {"step": 5, "eval_accuracy": 0.9, "eval_loss": 0.3},
        {"step": 10, "eval_accuracy": 0.8, "eval_loss": 0.2},
    ]
    assert kept_metric(history, 10, "accuracy") == 0.8
    assert kept_metric(history, 5, "eval_accuracy") == 0.9
    assert kept_metric(history, 10, None) == 0.2
    assert kept_metric(history, None, "accuracy") is None
