"""Settings that move the trajectory of a run, by the names that the user knows them under.

Knows which options and which training arguments change what a step does, or which step is the best or the last. Does
not know data, weights or rates as they were found (`hf_transfer.training.plan`), nor where all of it is kept
(`hf_transfer.training.checkpoints`).
"""

import enum
from typing import Any

from transformers import TrainingArguments

from hf_transfer.config import FinetuneConfig

OPTIONS = (
    "strategy",
    "granularity",
    "train_last",
    "unfreeze_every",
    "unfreeze_at",
    "unfreeze_on_plateau",
    "probe",
    "tune_norms",
    "layer_decay",
    "lr_groups",
    "l2_sp",
    "ema",
    "cache",
    "head_solver",
    "cache_views",
    "keep_head",
    "head_dropout",
    "proportions",
    "class_weights",
    "early_stopping_patience",
    "early_stopping_threshold",
)
"""Options of ours. Those that choose the data or its augmentation are compared by what they led to."""

# Not among them: `num_train_epochs` and `max_steps`, since a run may be made longer, and whatever leaves the numbers
# alone: workers, logging, how often a checkpoint is saved.
TRAINING_ARGUMENTS = (
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
    "optim",
    "optim_args",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "weight_decay",
    "max_grad_norm",
    "label_smoothing_factor",
    "dataloader_drop_last",
    "ignore_data_skip",
    "eval_strategy",
    "eval_steps",
    "eval_delay",
    "metric_for_best_model",
    "greater_is_better",
    "seed",
    "data_seed",
)

PRECISION = "precision"
"""Where the user leaves it to a measurement, a resumed run takes it from its checkpoint."""


def trajectory_settings(config: FinetuneConfig, args: TrainingArguments) -> dict[str, Any]:
    """Returns the settings that must be the same when a run is continued.

    Args:
        config (`FinetuneConfig`):
            What the user asked for.
        args (`TrainingArguments`):
            The arguments of the run, our defaults among them.

    Returns:
        `dict[str, Any]`: JSON values by option, such as `{"--strategy": "full", "--seed": 42}`.
    """
    settings = {f"--{name}": getattr(config, name) for name in OPTIONS}
    settings |= {f"--{name}": _plain(getattr(args, name)) for name in TRAINING_ARGUMENTS}
    return settings | {
        "images per step": args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size,
        PRECISION: args.mixed_precision,
    }


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value
