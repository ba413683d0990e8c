"""One training: from data and checkpoint to the best weights, saved.

Knows how the pieces of this room fit together for `hf_transfer.pipeline`. Does not evaluate on test data and writes
nothing but checkpoints and the model folder.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import EarlyStoppingCallback, EvalPrediction, TrainingArguments
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from hf_transfer.config import FinetuneConfig
from hf_transfer.data.decode_once import TrainingInput
from hf_transfer.data.image_data import ImageData
from hf_transfer.data.mixing import MixingCollator, collate_images
from hf_transfer.data.transforms import AugmentationSettings
from hf_transfer.errors import UserError, nearest
from hf_transfer.models.batch_norm import has_batch_norm
from hf_transfer.models.checkpoint import Checkpoint
from hf_transfer.training.arguments import EARLY_STOPPING_PATIENCE, recomputes_activations
from hf_transfer.training.averaging import WeightAverage
from hf_transfer.training.batch_size import train_within_memory
from hf_transfer.training.caching import attach_cache
from hf_transfer.training.callbacks import EvaluationLineCallback, FiniteLossCallback, PlainEvaluationLineCallback
from hf_transfer.training.checkpoints import (
    RunningLossCallback,
    check_identity,
    checkpoint_to_continue,
    stopped_early,
)
from hf_transfer.training.compiling import Compilation, attach_compile_trial
from hf_transfer.training.forgetting import ForgettingCallback, remedies
from hf_transfer.training.history import epoch_history
from hf_transfer.training.judging import judged_by
from hf_transfer.training.kept_epoch import keeps_last_good, kept_metric
from hf_transfer.training.l2sp import L2SPCallback
from hf_transfer.training.layer_decay import plan_layer_decay
from hf_transfer.training.layer_rates import parameter_rates
from hf_transfer.training.loss import balanced_class_weights
from hf_transfer.training.plan import planned_groups, planned_unfreezing, run_identity
from hf_transfer.training.preemption import PreemptionCallback
from hf_transfer.training.rates import LearningRates
from hf_transfer.training.read_token_search import attach_read_token
from hf_transfer.training.solved_start import solved_facts
from hf_transfer.training.trainer import TransferTrainer
from hf_transfer.training.wise_ft import ChosenAlpha, choose_alpha


@dataclass(frozen=True)
class TrainingOutcome:
    """What a training left behind, in numbers."""

    history: tuple[dict[str, float], ...]
    steps: int
    epochs: float
    best_step: int | None
    """The step whose weights are kept; `None` where the last ones are, as they are."""
    best_metric: float | None
    """What validation gave at that step."""
    stopped_early: bool
    resumed_from: str | None
    data_wait_share: float | None
    """Share of the time of steps that went by in waiting for pictures; of this start's steps, if it was resumed."""
    highest_metric: float | None = None
    """What the best evaluation gave, where the last that is within chance of it is kept."""
    wise_ft_alpha: float | None = None
    """The share of the fine-tuned weights in the mixture, where one was asked for."""
    solved_head: dict[str, float] | None = None
    """Strength, validation score and seconds of a head that was solved in one go."""
    cache: tuple[dict[str, Any], ...] = ()
    """For each phase, whether frozen layers were computed once, and why not."""
    compilation: Compilation | None = None
    """What `--torch_compile auto` came to, with its measurements."""


def build_trainer(
    config: FinetuneConfig,
    data: ImageData,
    checkpoint: Checkpoint,
    args: TrainingArguments,
    augmentation: AugmentationSettings,
    rates: LearningRates,
    compute_metrics: Callable,
    pictures: TrainingInput,
) -> TransferTrainer:
    """Puts data, checkpoint and arguments into a `TransferTrainer`."""
    if recomputes_activations(args) and not checkpoint.model.supports_gradient_checkpointing:
        raise UserError(
            f"--activation_checkpointing: {checkpoint.architecture} does not support it.",
            hint="leave it out, or a smaller --per_device_train_batch_size with --gradient_accumulation_steps",
        )
    _check_best_metric(args, compute_metrics, len(data.label_names))
    groups = planned_groups(config, checkpoint)
    decay = plan_layer_decay(config.layer_decay, config.strategy, checkpoint.model).per_group(len(groups))
    weights = balanced_class_weights(data.class_counts("train")) if config.class_weights == "balanced" else None
    trainer = TransferTrainer(
        model=checkpoint.model,
        args=args,
        data_collator=collate_images,
        train_dataset=pictures.train,
        eval_dataset=pictures.validation,
        processing_class=checkpoint.image_processor,
        compute_metrics=compute_metrics,
        callbacks=[
            FiniteLossCallback(),
            ForgettingCallback(remedies(config.strategy, args.learning_rate, config.augmentation)),
            *_l2_sp(config, checkpoint),
            *_early_stopping(config, args),
        ],
        strategy=planned_unfreezing(config, rates),
        groups=groups,
        rates=parameter_rates(groups, rates, decay, config.lr_groups),
        class_weights=weights,
        channels_last=wants_channels_last(config, checkpoint.model),
        average=None if config.ema is None else WeightAverage(checkpoint.model, config.ema),
        train_collator=_mixing_collator(augmentation, len(data.label_names), args.seed),
        vary=pictures.vary,
        run_identity=run_identity(config, data, checkpoint, args, rates, augmentation, pictures),
    )
    trainer.keeps_last_good = keeps_last_good(config, args)
    attach_read_token(trainer, pictures.validation)
    attach_cache(trainer, config, data, checkpoint, augmentation)
    attach_compile_trial(trainer, config)
    wait = trainer.data_wait
    trainer.remove_callback(PrinterCallback if args.disable_tqdm else ProgressCallback)
    trainer.add_callback(PlainEvaluationLineCallback(wait) if args.disable_tqdm else EvaluationLineCallback(wait))
    return trainer


def train(trainer: TransferTrainer, args: TrainingArguments, find_batch_size: bool = False) -> TrainingOutcome:
    """Runs the training, from a checkpoint where the user asked for it, and returns what came of it.

    Args:
        trainer ([`TransferTrainer`]):
            The trainer.
        args (`TrainingArguments`):
            Its arguments.
        find_batch_size (`bool`, *optional*, defaults to `False`):
            Whether to go on with smaller micro-batches where memory runs out.

    Returns:
        [`TrainingOutcome`]

    Raises:
        Preempted: if SIGTERM stopped it; everything is saved then.
        UserError: if the checkpoint to continue from is damaged or belongs to another run.
    """
    found = checkpoint_to_continue(args)
    resume = found.folder
    if args.should_save:
        for note in found.notes:
            print(f"note: {note}", flush=True)
    preemption = PreemptionCallback(trainer)
    trainer.add_callback(preemption)
    if resume is not None:
        check_identity(resume, trainer.run_identity)
    try:
        if resume is not None and stopped_early(resume):
            trainer.take_up_finished(resume)
        elif find_batch_size:
            train_within_memory(trainer, resume, lambda folder: _train_from(trainer, folder))
        else:
            _train_from(trainer, resume)
    finally:
        preemption.release()
        if trainer.only_read is not None:
            trainer.only_read.release()
        trainer.leave_half_learning()
    preemption.check()
    state = trainer.state
    history = tuple(epoch_history(state.log_history))
    best = None if state.best_metric is None else float(state.best_metric)
    kept_step = state.best_global_step if args.load_best_model_at_end else None
    return TrainingOutcome(
        history=history,
        steps=state.global_step,
        epochs=float(state.epoch or 0.0),
        best_step=kept_step,
        best_metric=kept_metric(history, kept_step, args.metric_for_best_model),
        highest_metric=best if trainer.keeps_last_good else None,
        stopped_early=state.global_step < state.max_steps and not (trainer.solved_head and trainer.solved_head.is_all),
        resumed_from=None if resume is None else str(resume),
        solved_head=solved_facts(state.log_history),
        cache=() if trainer.prefix is None else tuple(trainer.prefix.facts),
        data_wait_share=trainer.data_wait.share,
        compilation=None if trainer.compiling is None else trainer.compiling.decision,
    )


def mix_with_pretrained(
    trainer: TransferTrainer, start: Mapping[str, torch.Tensor], head_names: Collection[str]
) -> ChosenAlpha:
    """Mixes the trained model with the pretrained weights as far as it does validation good (WiSE-FT)."""
    metric, rises = judged_by(trainer.args.metric_for_best_model, trainer.args.greater_is_better)
    validation: Any = trainer.eval_dataset

    def score() -> float:
        metrics: dict[str, float] = trainer.predict(validation, metric_key_prefix="mixed").metrics or {}
        return metrics[f"mixed_{metric}"] if rises else -metrics[f"mixed_{metric}"]

    chosen = choose_alpha(trainer.accelerator.unwrap_model(trainer.model), start, score, head_names)
    if trainer.args.should_save:
        print(f"WiSE-FT: {chosen.alpha:g} of the fine-tuned weights, the rest of the pretrained ones.", flush=True)
    return chosen


def _train_from(trainer: TransferTrainer, folder: Path | None) -> None:
    trainer.remove_callback(RunningLossCallback)
    if folder is not None:
        trainer.add_callback(RunningLossCallback(trainer, folder))
    trainer.train(resume_from_checkpoint=None if folder is None else str(folder))


def save_model(trainer: TransferTrainer, folder: Path) -> None:
    """Writes model and image processor to `folder`, as `transformers.pipeline` loads them, without any pickle."""
    trainer.save_model(str(folder))
    # Under ZeRO-3 every model that is loaded from here on would be cut into pieces as well, the saved one among them.
    unset_hf_deepspeed_config()
    if trainer.args.should_save:
        # Trainer's own notes are a pickle; they belong to the run's checkpoints, not to a model that is passed on.
        (folder / TRAINING_ARGS_NAME).unlink(missing_ok=True)


def wants_channels_last(config: FinetuneConfig, model: nn.Module) -> bool:
    """Tells whether kernels are laid out channels-last: by choice, or for classic conv nets.

    Networks with BatchNorm, such as ResNet and MobileNet, run faster so; transformers do not
    (`benchmarks/results/channels_last.md`).
    """
    if config.channels_last != "auto":
        return config.channels_last == "on"
    return has_batch_norm(model)


def _check_best_metric(args: TrainingArguments, compute_metrics: Callable, num_classes: int) -> None:
    """Refuses a metric that no evaluation will report; Trainer would notice after the first epoch."""
    if args.metric_for_best_model is None:
        return
    perfect = EvalPrediction(np.eye(num_classes, dtype=np.float32), np.arange(num_classes))
    known = ["loss", *compute_metrics(perfect)]
    wanted = args.metric_for_best_model.removeprefix("eval_")
    if wanted not in known:
        close = nearest(wanted, known)
        raise UserError(
            f"--metric_for_best_model {args.metric_for_best_model}: no evaluation reports it.",
            ", ".join(known),
            f"--metric_for_best_model {close}" if close else "--metrics to have it computed",
        )


def _early_stopping(config: FinetuneConfig, args: TrainingArguments) -> list[EarlyStoppingCallback]:
    patience = EARLY_STOPPING_PATIENCE.value
    if config.early_stopping_patience is not None:
        patience = config.early_stopping_patience
    if patience == 0 or not args.load_best_model_at_end:
        return []
    return [EarlyStoppingCallback(patience, config.early_stopping_threshold)]


def _l2_sp(config: FinetuneConfig, checkpoint: Checkpoint) -> list[L2SPCallback]:
    if config.l2_sp is None:
        return []
    if config.l2_sp <= 0 or config.strategy in ("scratch", "feature-extraction"):
        raise UserError(
            f"--l2_sp {config.l2_sp:g} with --strategy {config.strategy}",
            "a number above 0, with a strategy that trains pretrained weights",
            "--l2_sp 0.1, or leave it out",
        )
    return [L2SPCallback(checkpoint.model, checkpoint.head_parameter_names, config.l2_sp)]


def _mixing_collator(augmentation: AugmentationSettings, num_classes: int, seed: int) -> MixingCollator | None:
    if augmentation.mixup == 0 and augmentation.cutmix == 0:
        return None
    return MixingCollator(num_classes, augmentation.mixup, augmentation.cutmix, seed=seed)
