"""Runs that are continued where Trainer by itself would go astray."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import EarlyStoppingCallback, TrainerCallback

from hf_transfer.errors import UserError
from hf_transfer.training.checkpoints import CONTENTS_FILE, is_whole
from hf_transfer.training.preemption import Preempted
from hf_transfer.training.session import train
from hf_transfer.training.trainer import TransferTrainer
from tests.training.killed_run import TIMING, accuracy
from tests.training.tiny_run import tiny_model, tiny_trainer


class StopAt(TrainerCallback):
    """Sends SIGTERM after a step."""

    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def trainer_of(folder: Path, *callbacks: TrainerCallback, **settings) -> TransferTrainer:
    """Returns a trainer of 15 steps, 5 an epoch, that continues where there is something to continue."""
    usual: dict[str, Any] = {"split_size": 18, "num_train_epochs": 3, "optim": "adamw_torch", "learning_rate": 1e-3}
    usual |= {"eval_strategy": "epoch", "save_strategy": "epoch", "logging_strategy": "epoch"}
    usual |= {"metric_for_best_model": "accuracy", "compute_metrics": accuracy, "lr_scheduler_type": "cosine"}
    usual |= {"resume_from_checkpoint": "auto", "restore_callback_states_from_checkpoint": True}
    return tiny_trainer(tiny_model("vit"), folder, callbacks=list(callbacks), **(usual | settings))


def trained(folder: Path, *callbacks: TrainerCallback, **settings) -> TransferTrainer:
    trainer = trainer_of(folder, *callbacks, **settings)
    train(trainer, trainer.args)
    return trainer


def stopped_and_continued(folder: Path, step: int, **settings) -> TransferTrainer:
    with pytest.raises(Preempted, match=f"after step {step};"):
        trained(folder, StopAt(step), **settings)
    return trained(folder, **settings)


def assert_same_weights(one: TransferTrainer, other: TransferTrainer) -> None:
    expected = other.model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in one.model.state_dict().items())


def log_of(trainer: TransferTrainer) -> list[dict[str, float]]:
    entries = trainer.state.log_history
    return [{key: value for key, value in entry.items() if not key.endswith(TIMING)} for entry in entries]


@pytest.mark.parametrize(
    "settings",
    [
        {"eval_on_start": True},
        {"gradient_accumulation_steps": 3, "per_device_train_batch_size": 2, "num_train_epochs": 4},
        {"save_strategy": "best", "load_best_model_at_end": True},
        {"max_steps": 9},
    ],
    ids=["evaluation at the start", "accumulation", "only the best saved", "ending within an epoch"],
)
def test_stopped_and_continued_is_uninterrupted(settings: dict, tmp_path: Path):
    whole = trained(tmp_path / "whole", **settings)
    again = stopped_and_continued(tmp_path / "stopped", 7, **settings)
    assert log_of(again) == log_of(whole)
    assert_same_weights(again, whole)


def test_a_finished_run_takes_no_further_step(tmp_path: Path):
    # Seven steps end within the second epoch, where Trainer would go on to an eighth.
    finished = trained(tmp_path, max_steps=7)
    again = trained(tmp_path, max_steps=7)
    assert again.state.global_step == 7
    assert_same_weights(again, finished)
    assert trained(tmp_path, max_steps=9).state.global_step == 9


@pytest.mark.parametrize("ended", ["early", "in full"])
def test_the_best_checkpoint_is_found_in_a_folder_that_was_moved(ended: str, tmp_path: Path):
    def run(folder: Path) -> TransferTrainer:
        callbacks = [EarlyStoppingCallback(1)] if ended == "early" else []
        # Nothing is learned, so that the first evaluation stays the best.
        return trained(folder, *callbacks, learning_rate=0.0, load_best_model_at_end=True)

    assert run(tmp_path / "here").state.global_step == (10 if ended == "early" else 15)
    (tmp_path / "here").rename(tmp_path / "there")
    assert run(tmp_path / "there").state.best_model_checkpoint == str(tmp_path / "there" / "checkpoint-5")


def test_weights_alone_are_not_continued(tmp_path: Path):
    trained(tmp_path, max_steps=5, save_only_model=True)
    with pytest.raises(UserError, match="holds weights alone"):
        trained(tmp_path, max_steps=10, save_only_model=True)


def test_a_checkpoint_that_is_being_written_over_counts_as_cut_off(tmp_path: Path, monkeypatch):
    trained(tmp_path)
    over = tmp_path / "checkpoint-15"
    assert is_whole(over)
    seen: list[bool] = []

    def look(trainer: TransferTrainer, output_dir: str) -> None:
        seen.append(is_whole(Path(output_dir)) or (Path(output_dir) / CONTENTS_FILE).exists())

    monkeypatch.setattr(TransferTrainer, "_save_optimizer_and_scheduler", look)
    trained(tmp_path, resume_from_checkpoint=str(tmp_path / "checkpoint-10"))
    # Old and new files may have the same sizes.
    assert seen == [False]
    assert is_whole(over)
