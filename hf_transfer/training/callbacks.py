"""Callbacks of a run: the progress line of each evaluation and the stop at a loss that is no number.

Knows what Trainer reports and when. Does not decide when to evaluate, save or stop early: Trainer's own callbacks do.
"""

import math

from transformers import TrainerCallback
from transformers.trainer_callback import ProgressCallback

from hf_transfer.errors import UserError
from hf_transfer.training.data_wait import DataWait

_SHOWN_METRICS = ("accuracy", "balanced_accuracy", "macro_f1")


class EvaluationLineCallback(ProgressCallback):
    """Trainer's progress bar, with one readable line for each evaluation in place of printed dictionaries."""

    def __init__(self, data_wait: DataWait | None = None):
        super().__init__()
        self._data_wait = data_wait
        self._train_loss: float | None = None

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            self._train_loss = float(logs["loss"])

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        super().on_evaluate(args, state, control, **kwargs)
        if state.is_world_process_zero and metrics:
            waited = None if self._data_wait is None else self._data_wait.share_since_last()
            self._write(evaluation_line(state, metrics, self._train_loss, waited))

    def _write(self, line: str) -> None:
        if self.training_bar is not None:
            self.training_bar.write(line)
        else:
            print(line, flush=True)


class PlainEvaluationLineCallback(EvaluationLineCallback):
    """The same lines without a progress bar, for `--disable_tqdm` and log files."""

    def on_train_begin(self, args, state, control, **kwargs):
        pass

    def on_step_end(self, args, state, control, **kwargs):
        pass

    def on_prediction_step(self, args, state, control, eval_dataloader=None, **kwargs):
        pass

    def on_train_end(self, args, state, control, **kwargs):
        pass


def evaluation_line(state, metrics: dict[str, float], train_loss: float | None, waited: float | None = None) -> str:
    """Returns the line shown after an evaluation: where the run is, losses, main metrics, the wait for pictures."""
    parts = [f"epoch {state.epoch or 0:5.2f}/{state.num_train_epochs}", f"step {state.global_step}/{state.max_steps}"]
    if train_loss is not None:
        parts.append(f"train loss {train_loss:.4f}")
    parts.append(f"validation loss {metrics['eval_loss']:.4f}")
    parts += [
        f"{name.replace('_', ' ')} {metrics[f'eval_{name}']:.4f}"
        for name in _SHOWN_METRICS
        if f"eval_{name}" in metrics
    ]
    if waited is not None:
        parts.append(f"waited for pictures {waited:.0%}")
    return "  ".join(parts)


class FiniteLossCallback(TrainerCallback):
    """Stops the run with a clear message when the training loss is no longer a number."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(loss):
            raise UserError(
                f"The training loss became {loss} at step {state.global_step}.",
                hint=f"a smaller --learning_rate (it was {args.learning_rate:g}), a longer --warmup_steps, or --bf16 "
                "in place of --fp16",
            )
