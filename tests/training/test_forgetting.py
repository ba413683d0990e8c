"""The warning of a run that forgets."""

from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from hf_transfer.training.forgetting import ForgettingCallback, is_forgetting, remedies


def history(train: list[float], validation: list[float]) -> list[dict[str, float]]:
    return [{"train_loss": one, "eval_loss": other} for one, other in zip(train, validation, strict=True)]


@pytest.mark.parametrize(
    ("train", "validation", "expected"),
    [
        ([4, 3, 2, 1], [1, 2, 3, 4], True),
        ([9, 4, 3, 2, 1], [5, 1, 2, 3, 4], True),
        ([4, 3, 2], [1, 2, 3], False),
        ([4, 3, 2, 1], [1, 2, 1, 2], False),
        ([4, 3, 3.5, 1], [1, 2, 3, 4], False),
        ([4, 3, 2, 1], [1, 1, 2, 3], False),
    ],
)
def test_three_worse_evaluations_while_the_training_loss_falls(train, validation, expected):
    assert is_forgetting(history(train, validation)) is expected


def test_it_is_said_once_and_names_remedies(tmp_path: Path, capsys):
    callback = ForgettingCallback(remedies("full", 3e-4, "light"))
    state = TrainerState(is_world_process_zero=True)
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    for step in range(1, 7):
        state.log_history.append({"loss": 1.0 / step, "step": step, "epoch": step})
        state.log_history.append({"eval_loss": float(step), "step": step, "epoch": step})
        callback.on_evaluate(args, state, TrainerControl())
    printed = capsys.readouterr().out
    assert printed.count("warning:") == 1
    assert "--learning_rate 0.0001, --layer_decay 0.75" in printed


def test_remedies_in_force_are_not_named():
    assert "progressive" not in remedies("progressive", 1e-3, "light")
    assert "layer_decay" not in remedies("partial", 1e-3, "light")
    assert "strong" not in remedies("full", 1e-3, "strong")
