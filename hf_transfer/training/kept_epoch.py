"""Which evaluation's weights are kept: the best ones', or the last ones' that chance alone could tell from them.

Of a head on frozen features the later epochs are the better ones, since its learning rate comes down; the epoch with
the highest accuracy on a few hundred validation pictures is mostly a lucky one (`benchmarks/results/best_epoch.md`).
So the last one within a standard error of the highest is kept, the one-standard-error rule (Hastie, Tibshirani and
Friedman, The Elements of Statistical Learning, 2nd edition, section 7.10). Early stopping waits for the highest as
always. Does not know how checkpoints are written and reloaded.
"""

import math
from collections.abc import Sequence
from typing import Any

from transformers import Trainer, TrainingArguments

from hf_transfer.config import FinetuneConfig
from hf_transfer.training.judging import judged_evaluations

LAST_GOOD = "of a frozen network's head later epochs are better; the highest is mostly a lucky one"


def keeps_last_good(config: FinetuneConfig, args: TrainingArguments) -> bool:
    """Tells whether a run keeps the last good epoch: where only a head learns, unless the user says what is best."""
    named = {"metric_for_best_model", "greater_is_better"} & config.training.keys()
    return config.strategy == "feature-extraction" and not named and args.load_best_model_at_end


def standard_error(accuracy: float, num_images: int) -> float:
    """Returns the standard error of an accuracy that was measured on so many pictures."""
    return math.sqrt(accuracy * (1 - accuracy) / num_images)


def kept_metric(history: Sequence[dict[str, float]], step: int | None, metric: str | None) -> float | None:
    """Returns what the validation metric was at the step that is kept.

    Args:
        history (`Sequence[dict]`):
            A row for each evaluation.
        step (`int`, *optional*):
            The step.
        metric (`str`, *optional*):
            Its name, with or without `eval_`.
    """
    as_measured = judged_evaluations(history, metric, greater_is_better=True)
    return None if step is None else dict(as_measured).get(step)


class KeepingTrainer(Trainer):
    """Keeps the best checkpoint, as Trainer does, or the last good one."""

    keeps_last_good = False
    """Whether the last evaluation counts whose accuracy is within a standard error of the highest."""

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        is_best = super()._determine_best_metric(metrics, trial)
        if is_best or not self.keeps_last_good:
            return is_best
        name: Any = self.args.metric_for_best_model
        highest: Any = self.state.best_metric
        validation: Any = self.eval_dataset
        accuracy = metrics[f"eval_{name.removeprefix('eval_')}"]
        is_good = accuracy >= highest - standard_error(highest, len(validation))
        if is_good:
            # The highest stays what later evaluations are held against; the checkpoint is that of this step.
            self.state.best_global_step = self.state.global_step
        return is_good
