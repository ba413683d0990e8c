"""Stopping at SIGTERM, as schedulers send it before they take a machine away: save, and end cleanly.

Trainer's own `enable_jit_checkpoint` saves in the middle of a step, in the process that got the signal alone, and
leaves an epoch's log and evaluation behind that a resumed run would repeat. Here the running step is finished, all
processes stop together, and the checkpoint is one that a resumed run continues as if nothing had happened.

Does not know what a checkpoint holds (`hf_transfer.training.checkpoints`).
"""

import signal
import threading
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback

from hf_transfer.errors import UserError


class Preempted(UserError):
    """The run was stopped from outside and can be continued."""

    exit_code = 128 + signal.SIGTERM


class PreemptionCallback(TrainerCallback):
    """Saves and stops after the step in which SIGTERM arrived, in all processes.

    Args:
        trainer (`TransferTrainer`):
            The trainer that is to stop.
    """

    def __init__(self, trainer: Any):
        self.trainer = trainer
        self.stopped_at: int | None = None
        self._asked = False
        self._waits_for_epoch_end = False
        self._before: Any = None

    def on_train_begin(self, args, state, control, **kwargs):
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._ask)

    def on_step_end(self, args, state, control, **kwargs):
        if self.stopped_at is not None or not self._is_asked_anywhere() or state.global_step >= state.max_steps:
            return
        self.stopped_at = state.global_step
        # At the end of an epoch its log and evaluation come first, and then the checkpoint.
        self._waits_for_epoch_end = state.global_step % self.trainer.steps_per_epoch == 0
        control.should_save = control.should_save or not self._waits_for_epoch_end

    def on_epoch_end(self, args, state, control, **kwargs):
        if self.stopped_at is None:
            return
        if self._waits_for_epoch_end:
            self._waits_for_epoch_end = False
            control.should_save = True
        else:
            control.should_log = control.should_evaluate = control.should_save = False

    def on_save(self, args, state, control, **kwargs):
        # Only now, so that the checkpoint does not look like that of a training that had come to its end.
        if self.stopped_at is not None and not self._waits_for_epoch_end:
            control.should_training_stop = True

    def on_train_end(self, args, state, control, **kwargs):
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
            self._before = None

    def check(self) -> None:
        """Raises `Preempted` if the training was stopped."""
        if self.stopped_at is not None:
            raise Preempted(
                f"Stopped by SIGTERM after step {self.stopped_at}; all is saved in {self.trainer.args.output_dir}.",
                hint="the same command with --resume_from_checkpoint last goes on from there",
            )

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def _is_asked_anywhere(self) -> bool:
        if self.trainer.args.world_size == 1:
            return self._asked
        asked = torch.tensor(int(self._asked), device=self.trainer.args.device)
        return bool(self.trainer.accelerator.reduce(asked, reduction="sum").item())
