"""A Trainer whose checkpoints are whole or not there, and whose continued runs do what the uninterrupted one did.

Knows where Trainer (transformers 5.23) writes and takes up a checkpoint, and what it forgets then. Does not know how a
whole checkpoint is told from another (`hf_transfer.training.checkpoints`) or what is trained
(`hf_transfer.training.trainer`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints

from hf_transfer.training.averaging import WeightAverage
from hf_transfer.training.checkpoints import (
    break_seal,
    find_best,
    read_choices,
    refuse_weights_only,
    save_running_loss,
    seal_checkpoint,
    write_choices,
    write_identity,
)
from hf_transfer.training.compiling import CompileTrial
from hf_transfer.training.kept_epoch import KeepingTrainer
from hf_transfer.training.preemption import shield_workers


class ResumableTrainer(KeepingTrainer):
    """Seals its checkpoints and continues from them; `run_identity` and `choices` are kept in each."""

    run_identity: Mapping[str, Any]
    choices: dict[str, Any]
    """What was chosen by measuring, as JSON values by name; a continued run takes it over."""
    average: WeightAverage | None = None
    compiling: CompileTrial | None = None
    compiled: Any = None
    """The network that training steps run on, where a trial had it compiled."""

    def take_up_finished(self, folder: Path) -> None:
        """Takes up a training that had ended when its checkpoint was written, without another step."""
        self.state = TrainerState.load_from_json(str(folder / TRAINER_STATE_NAME))
        self.state.init_training_references(self, self.state.max_steps, self.state.num_train_epochs, None)
        find_best(self.state, folder)
        self.choices = read_choices(folder)
        if self.compiling is not None:
            self.compiling.take_up()
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint is not None:
            self._load_best_model()
        else:
            self._load_from_checkpoint(str(folder))
            if self.average is not None:
                self.average.replace_weights()

    def _get_dataloader(self, *args: Any, **kwargs: Any):
        loader = super()._get_dataloader(*args, **kwargs)
        shield_workers(loader)
        return loader

    def _init_training_state(self, max_steps, num_update_steps_per_epoch, num_train_epochs, resume, trial):
        if resume is not None:
            refuse_weights_only(Path(resume))
            # That evaluation has been made; another would use up patience.
            self.args.eval_on_start = False
        self.choices = {} if resume is None else read_choices(Path(resume))
        started = super()._init_training_state(max_steps, num_update_steps_per_epoch, num_train_epochs, resume, trial)
        if resume is not None:
            find_best(self.state, Path(resume))
        return started

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if self.state.global_step >= self.state.max_steps or self.control.should_training_stop:
            # A finished run: where `max_steps` ends within an epoch, Trainer would take another step, as it would
            # where a callback has nothing left to train.
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Completes what Trainer saves, and only then lets older checkpoints go.

        Trainer deletes older ones before a newer one is known to be whole.
        """
        folder = Path(self._get_output_dir(trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if self.state.best_global_step == self.state.global_step == 0:
            # Trainer (transformers 5.24) takes a best step 0 for none.
            self.state.best_model_checkpoint = str(folder)
        if self.args.should_save:
            break_seal(folder)
        self.accelerator.wait_for_everyone()
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        save_running_loss(self, folder)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            if self.average is not None:
                self.average.save(folder)
            write_identity(folder, self.run_identity)
            write_choices(folder, self.choices)
            seal_checkpoint(folder)
            rotate_checkpoints(
                output_dir=str(folder.parent),
                save_total_limit=limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=False,
            )
