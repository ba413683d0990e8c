"""`TrainingArguments` in four layers: Trainer's defaults, ours, the strategy's, the user's.

Knows every default in which we differ from Trainer and why: `OUR_DEFAULTS` and `STRATEGY_DEFAULTS` are the one place.
Does not parse anything and does not train.
"""

import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from hf_transfer.config import FinetuneConfig
from hf_transfer.environment import available_cores
from hf_transfer.errors import UserError


@dataclass(frozen=True)
class Default:
    """A default of ours and the reason why it differs from Trainer's."""

    value: Any
    reason: str


OUR_DEFAULTS: dict[str, Default] = {
    "per_device_train_batch_size": Default(32, "8, Trainer's own, leaves hardware idle"),
    "per_device_eval_batch_size": Default(64, "evaluation keeps no activations for a backward pass"),
    "lr_scheduler_type": Default("cosine", "spends more steps at small rates at the end than a line does"),
    "warmup_steps": Default(0.1, "a fresh head sends large gradients at first"),
    "weight_decay": Default(0.01, "AdamW's usual value; never on norms, biases and scales"),
    "max_grad_norm": Default(1.0, "as Trainer's, written down because pretrained features depend on it"),
    "eval_strategy": Default("epoch", "without evaluation there is no best checkpoint and no early stopping"),
    "save_strategy": Default("epoch", "has to match the evaluation for the best checkpoint to exist"),
    "logging_strategy": Default("epoch", "one point per epoch for the curves; the progress bar shows the rest"),
    "load_best_model_at_end": Default(True, "the best is kept, not the last"),
    "metric_for_best_model": Default("accuracy", "the number that the model is judged by"),
    "save_total_limit": Default(2, "the best and the last checkpoint stay; disks fill quickly otherwise"),
    "logging_nan_inf_filter": Default(False, "it hides a diverged loss and waits for the device at every step"),
    "remove_unused_columns": Default(False, "it deletes the image column (transformers#17894)"),
    "restore_callback_states_from_checkpoint": Default(True, "early stopping forgets its patience on resume (#28544)"),
}

STRATEGY_DEFAULTS: dict[str, dict[str, Default]] = {
    "feature-extraction": {
        "num_train_epochs": Default(6, "a linear head on frozen features settles within a few passes"),
    },
    "partial": {
        "num_train_epochs": Default(3, "pretrained features need few passes, and forget with many"),
    },
    "progressive": {
        "num_train_epochs": Default(3, "the same budget as full fine-tuning, so that the two compare"),
    },
    "lp-ft": {
        "num_train_epochs": Default(3, "the same budget as full fine-tuning, so that the two compare"),
    },
    "full": {
        "num_train_epochs": Default(3, "pretrained features need few passes, and forget with many"),
    },
    "scratch": {
        "num_train_epochs": Default(3, "the same budget as full fine-tuning, so that the two compare"),
    },
}

# Peak learning rates, where Trainer has 5e-5 for all; `hf_transfer.training.rates` chooses among them. Those of norms
# are the middle ones of three tried (`benchmarks/results/norms_first.md`).
RATE_DEFAULTS: dict[str, Default] = {
    "backbone": Default(1e-4, "small, so that pretrained features are adjusted and not overwritten"),
    "backbone with BatchNorm": Default(1e-3, "networks with BatchNorm hardly move at smaller rates"),
    "BatchNorm alone": Default(1e-2, "few weights, which have an epoch or so to adapt the features"),
    "other norms alone": Default(3e-3, "few weights, which have an epoch or so to adapt the features"),
    "head": Default(5e-3, "a fresh head has far to go, and nothing to forget"),
    "scratch": Default(1e-3, "AdamW's usual rate for small networks; there is nothing to forget"),
}

_TRACKERS = ("tensorboard", "trackio", "wandb")
EARLY_STOPPING_PATIENCE = Default(5, "fewer would end short runs before their learning rate has come down")


def default_output_dir(config: FinetuneConfig) -> str:
    """Returns `runs/<model>-<dataset>-<strategy>` for a run whose `--output_dir` was left out."""
    parts = [re.sub(r"[^A-Za-z0-9._-]+", "-", Path(name).stem or name) for name in (config.model, config.dataset)]
    return str(Path("runs") / "-".join([*parts, config.strategy]))


def planned_arguments(config: FinetuneConfig) -> dict[str, Any]:
    """Merges our defaults, the strategy's and the hardware's with what the user set.

    Args:
        config (`FinetuneConfig`):
            What the user asked for.

    Returns:
        `dict`: keyword arguments for `TrainingArguments`; of the precision, only what the user set.
    """
    values = {name: default.value for name, default in OUR_DEFAULTS.items()}
    strategy = STRATEGY_DEFAULTS[config.strategy]
    values |= {name: default.value for name, default in strategy.items()}
    values |= _hardware_defaults(config.training)
    values |= {"output_dir": default_output_dir(config)}
    values |= _follow_evaluation(config.training)
    return values | config.training


def build_training_arguments(
    config: FinetuneConfig, learning_rate: float, precision: str | None = None
) -> TrainingArguments:
    """Builds the arguments of the run and starts the process group of a distributed run.

    Args:
        config (`FinetuneConfig`):
            What the user asked for.
        learning_rate (`float`):
            The rate of the backbone, or of the head where only the head learns.
        precision (`str`, *optional*):
            `no`, `bf16` or `fp16`; what the user or the launcher set, or float32, when left out.

    Returns:
        `TrainingArguments`

    Raises:
        UserError: if `TrainingArguments` refuses a value, with its own words; if there is no checkpoint to continue.
    """
    # `hf_transfer.training.batch_size` does it: Trainer would change the number of images per step.
    # Nor does Trainer push: it would publish pickles, and a card with numbers that were not measured on the published
    # weights (`hf_transfer.publishing.push_of_training` does it when the run is finished).
    values = planned_arguments(config) | {"learning_rate": learning_rate, "auto_find_batch_size": False}
    values |= {"push_to_hub": False, "hub_token": None}
    if wants_compile_trial(config):
        # `hf_transfer.training.compiling` decides, just before the first step; either of the others would mean yes.
        values |= {"torch_compile": False, "torch_compile_backend": None, "torch_compile_mode": None}
    if precision is not None:
        values |= {"bf16": precision == "bf16", "fp16": precision == "fp16"}
    if (precision is not None or values.get("bf16")) and not torch.cuda.is_available():
        # transformers wants to hear that a bfloat16 is meant for the processor.
        values["use_cpu"] = True
    args = _training_arguments(values)
    _check_trackers(args)
    if wants_batch_size(config) and args.world_size > 1:
        raise UserError(
            "--auto_find_batch_size: where memory runs out in one process, the others wait for it for ever.",
            "one process",
            "--per_device_train_batch_size and --gradient_accumulation_steps by hand",
        )
    return args


def keep_to_one_gpu(args: TrainingArguments) -> None:
    """Keeps plain `python` on a machine with several GPUs out of nn.DataParallel, slow and wrong for BatchNorm."""
    if args.n_gpu > 1:
        print(
            f"One of {args.n_gpu} GPUs is used; `accelerate launch --multi_gpu finetune.py ...` uses all.", flush=True
        )
        args._n_gpu = 1


def _training_arguments(values: dict[str, Any]) -> TrainingArguments:
    try:
        return TrainingArguments(**values)
    except (ValueError, TypeError, KeyError, ImportError, NotImplementedError) as error:
        raise UserError(
            f"The training arguments do not fit together: {error}", hint="finetune.py --help_all for all of them"
        ) from error


def wants_batch_size(config: FinetuneConfig) -> bool:
    """Tells whether the user asked for smaller micro-batches where memory runs out."""
    return bool(config.training.get("auto_find_batch_size"))


def wants_compile_trial(config: FinetuneConfig) -> bool:
    """Tells whether the user left it to a trial whether the network is compiled."""
    return str(config.training.get("torch_compile")).lower() == "auto"


def images_per_step(args: TrainingArguments) -> int:
    """Returns how many pictures all processes together see between two steps of the optimizer."""
    return args.train_batch_size * args.gradient_accumulation_steps * args.world_size


def planned_visits(args: TrainingArguments, num_images: int) -> float:
    """Returns how often a training picture is going to be looked at."""
    if args.max_steps <= 0:
        return args.num_train_epochs
    return args.max_steps * images_per_step(args) / num_images


def recomputes_activations(args: TrainingArguments) -> bool:
    """Tells whether activations are computed again in the backward pass.

    transformers 5.17 knows `gradient_checkpointing` alone; newer ones have `activation_checkpointing`, and the old
    name beside it until 6.
    """
    given = vars(args)
    return bool(given.get("activation_checkpointing") or given.get("gradient_checkpointing"))


def _check_trackers(args: TrainingArguments) -> None:
    for name in args.report_to or ():
        if name in _TRACKERS and importlib.util.find_spec(name) is None:
            raise UserError(
                f"--report_to {name}: the package {name} is not installed.",
                hint=f'pip install "hf-transfer-learning[{name}]", or --report_to none',
            )


def _follow_evaluation(given: dict[str, Any]) -> dict[str, Any]:
    """Keeps saving in step with evaluation when the user set only the latter."""
    if "eval_strategy" not in given:
        return {}
    strategy = given["eval_strategy"]
    if strategy == "no":
        return {"load_best_model_at_end": False, "metric_for_best_model": None, "save_strategy": "epoch"}
    follow = {"save_strategy": strategy, "logging_strategy": strategy}
    if "eval_steps" in given:
        follow |= {"save_steps": given["eval_steps"], "logging_steps": given["eval_steps"]}
    return follow


def _hardware_defaults(given: dict[str, Any]) -> dict[str, Any]:
    """Workers, pinned memory and TF32 by what the machine has, unless the user decided."""
    if given.get("use_cpu") or not torch.cuda.is_available():
        # The cores that would decode are the cores that compute; pinned memory is for copies to a GPU.
        return {"dataloader_num_workers": 0, "dataloader_pin_memory": False}
    workers = given.get("dataloader_num_workers", min(8, _cores_per_process()))
    values: dict[str, Any] = {"dataloader_num_workers": workers, "dataloader_persistent_workers": int(workers) > 0}
    if given.get("dataloader_pin_memory", True):
        # A batch then goes to the device while it computes; else each waits for all that the device still has to do.
        values["accelerator_config"] = {"non_blocking": True}
    if torch.cuda.get_device_capability() >= (8, 0):
        values["tf32"] = True
    return values


def _cores_per_process() -> int:
    return max(1, available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
