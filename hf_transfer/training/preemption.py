"""Stopping at SIGTERM, as schedulers send it before they take a machine away: save, and end cleanly.

Trainer's own `enable_jit_checkpoint` saves in the middle of a step, in the process that got the signal alone, and
leaves an epoch's log and evaluation behind that a resumed run would repeat. Here the running step is finished, all
processes stop together, and the checkpoint is one that a resumed run continues as if nothing had happened.

Does not know what a checkpoint holds (`hf_transfer.training.checkpoints`).
"""

import functools
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_utils import SaveStrategy

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
        self._save_strategy: Any = None
        self._group: Any = None

    def on_train_begin(self, args, state, control, **kwargs):
        if args.world_size > 1 and self._group is None:
            # Of its own: asking over NCCL would wait in each step for all that the device still has to do.
            self._group = torch.distributed.new_group(backend="gloo")
        if self._before is None and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._ask)

    def on_step_end(self, args, state, control, **kwargs):
        if self.stopped_at is not None or not self._is_asked_anywhere() or state.global_step >= state.max_steps:
            return
        self.stopped_at = state.global_step
        # At the end of an epoch its log and evaluation come first, and then the checkpoint.
        self._waits_for_epoch_end = state.global_step % self.trainer.steps_per_epoch == 0
        if not self._waits_for_epoch_end:
            self._save_now(args, control)

    def on_epoch_end(self, args, state, control, **kwargs):
        if self.stopped_at is None:
            return
        if self._waits_for_epoch_end:
            self._waits_for_epoch_end = False
            self._save_now(args, control)
        else:
            control.should_log = control.should_evaluate = control.should_save = False

    def on_save(self, args, state, control, **kwargs):
        if self._save_strategy is not None:
            args.save_strategy, self._save_strategy = self._save_strategy, None
        # Only now, so that the checkpoint does not look like that of a training that had come to its end.
        if self.stopped_at is not None and not self._waits_for_epoch_end:
            control.should_training_stop = True

    def on_train_end(self, args, state, control, **kwargs):
        self.release()

    def release(self) -> None:
        """Gives SIGTERM back to whoever had it; to be called when training ends with an exception too."""
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

    def _save_now(self, args: TrainingArguments, control: Any) -> None:
        control.should_save = True
        if args.save_strategy == SaveStrategy.BEST:
            # An evaluation at this moment would overrule `should_save` (`Trainer._maybe_log_save_evaluate`).
            self._save_strategy, args.save_strategy = args.save_strategy, SaveStrategy.STEPS

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def _is_asked_anywhere(self) -> bool:
        if self.trainer.args.world_size == 1:
            return self._asked
        asked = torch.tensor(int(self._asked))
        torch.distributed.all_reduce(asked, group=self._group)
        return bool(asked)


def shield_workers(loader: DataLoader) -> None:
    """Lets a loader's worker processes outlive a SIGTERM that is sent to all processes of a job.

    Slurm and systemd send it so. A worker that dies of it raises in the main process, in the middle of the checkpoint
    that is being written. A SIGTERM of the main process still ends a worker: that is how Python ends them.
    """
    # accelerate wraps the loader whose workers are started.
    inner = getattr(loader, "base_dataloader", loader)
    inner.worker_init_fn = functools.partial(_obey_one_process, os.getpid(), inner.worker_init_fn)


def _obey_one_process(process: int, then: Callable[[int], None] | None, worker_id: int) -> None:
    # A handler cannot see who sent a signal; whoever waits for it can, on every Unix but macOS.
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_told, args=(process,), daemon=True).start()
    if then is not None:
        then(worker_id)


def _end_when_told(process: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != process:
        pass
    os._exit(0)
