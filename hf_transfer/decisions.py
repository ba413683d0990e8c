"""The decision table: what will be done and why, printed before any training.

Knows how decisions are worded. Does not take any of them: defaults live in `hf_transfer.training.arguments`,
augmentation in `hf_transfer.data.transforms`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from transformers import SchedulerType, TrainingArguments

from hf_transfer.config import FinetuneConfig
from hf_transfer.data.decode_once import TrainingInput
from hf_transfer.data.image_data import SPLIT_NAMES, ImageData
from hf_transfer.data.transforms import AugmentationSettings, varies
from hf_transfer.models.checkpoint import Checkpoint
from hf_transfer.report import Decision
from hf_transfer.training.arguments import OUR_DEFAULTS, STRATEGY_DEFAULTS
from hf_transfer.training.compiling import compiled_by_accelerate
from hf_transfer.training.head_decay import REASON, follows_memory
from hf_transfer.training.kept_epoch import LAST_GOOD, keeps_last_good
from hf_transfer.training.layer_decay import plan_layer_decay
from hf_transfer.training.memory import estimate_memory, free_memory, shown
from hf_transfer.training.rates import YOURS, LearningRates
from hf_transfer.training.session import TrainingOutcome, wants_channels_last
from hf_transfer.training.trainer import TransferTrainer

_STRATEGY_REASONS = {
    "feature-extraction": "the backbone stays as pretrained, only the head learns",
    "partial": "the head and the last layer groups learn, what lies below stays as pretrained",
    "progressive": "the head learns first, then group by group from the last to the first (ULMFiT)",
    "lp-ft": "the head learns first, then everything, so that a fresh head does not spoil the features",
    "full": "every weight learns, the backbone gently",
    "scratch": "the same architecture from fresh weights, to compare with",
}

_NORMS_FIRST = "norms of the backbone learn at first, the rest of it stays as pretrained"
_IF_IT_PAYS = ", compiled if that pays"
_TRAINING_PIXELS = "training pixels"


def decide(
    config: FinetuneConfig,
    data: ImageData,
    checkpoint: Checkpoint,
    args: TrainingArguments,
    augmentation: AugmentationSettings,
    trainer: TransferTrainer,
    rates: LearningRates,
    pixels_reason: str,
    precision_reason: str,
    pictures: TrainingInput,
) -> tuple[Decision, ...]:
    """Lists what the run will do, with a reason each."""
    processes = f" x {args.world_size} processes" if args.world_size > 1 else ""
    accumulation = f" x {args.gradient_accumulation_steps} accumulated" if args.gradient_accumulation_steps > 1 else ""
    computed_in = _precision(trainer, wants_channels_last(config, checkpoint.model))
    batch = f"{args.per_device_train_batch_size}{processes}{accumulation}"
    return (
        Decision("model", checkpoint.architecture, _origin(checkpoint)),
        Decision("strategy", config.strategy, _strategy_reason(config)),
        *_layer_groups(config, trainer),
        *_head_solver(trainer),
        Decision("trainable", *_trainable(checkpoint.model)),
        Decision("new tensors", *_new_tensors(config, checkpoint)),
        Decision("pictures", ", ".join(f"{len(data.split(name))} {name}" for name in SPLIT_NAMES), _splits(data)),
        Decision("classes", str(len(data.label_names)), _balance(data)),
        Decision(_TRAINING_PIXELS, augmentation.describe(), "the rest as the checkpoint's processor says"),
        Decision("varied on", pictures.varied.place, pictures.varied.reason),
        Decision("evaluation pixels", type(checkpoint.image_processor).__name__, pixels_reason),
        Decision("pictures decoded", pictures.decoded, pictures.reason),
        Decision("budget", _budget(args), _reason("num_train_epochs", config)),
        Decision("batch", batch, _reason("per_device_train_batch_size", config)),
        *_memory(config, trainer),
        *_rates(config, checkpoint, trainer, rates),
        Decision("schedule", _schedule(args), _reason("warmup_steps", config)),
        Decision("weight decay", f"{args.weight_decay:g}", _decay_reason(config, args)),
        Decision("best checkpoint", *_selection(config, args)),
        Decision("precision", computed_in, f"on {args.device.type}, {precision_reason}"),
    )


def settle(
    decisions: Sequence[Decision], outcome: TrainingOutcome, augmentation: AugmentationSettings
) -> tuple[Decision, ...]:
    """Returns the decisions with what the training has settled: whether it was compiled, how many views it showed."""
    return tuple(dataclasses.replace(one, value=_settled(one, outcome, augmentation)) for one in decisions)


def _settled(decision: Decision, outcome: TrainingOutcome, augmentation: AugmentationSettings) -> str:
    if decision.name == _TRAINING_PIXELS and varies(augmentation):
        return decision.value + _views(outcome.cache)
    if outcome.compilation is not None:
        return decision.value.replace(_IF_IT_PAYS, ", compiled" if outcome.compilation.compiled else "")
    return decision.value


def _views(cache: Sequence[Mapping[str, Any]]) -> str:
    """Says how many views of a picture were shown while layers were frozen; nothing if each epoch had new ones."""
    limited = next((facts for facts in cache if facts["views"] is not None), None)
    if limited is None:
        return ""
    shown = "1 view" if limited["views"] == 1 else f"{limited['views']} views"
    first = "" if limited["first_varied"] else ", the first not varied"
    return f"; {shown} of each picture while layers are frozen{first}"


def format_decisions(decisions: Sequence[Decision]) -> str:
    """Returns the decisions as a table of aligned columns."""
    names = max(len(decision.name) for decision in decisions)
    values = min(50, max(len(decision.value) for decision in decisions))
    return "\n".join(
        f"  {decision.name:<{names}}  {decision.value:<{values}}  {decision.reason}".rstrip() for decision in decisions
    )


def _strategy_reason(config: FinetuneConfig) -> str:
    return _STRATEGY_REASONS[config.strategy] if config.tune_norms is None else _NORMS_FIRST


def _origin(checkpoint: Checkpoint) -> str:
    return f"{checkpoint.source}@{checkpoint.revision[:8]}" if checkpoint.revision else checkpoint.source


def _trainable(model: nn.Module) -> tuple[str, str]:
    total = sum(parameter.numel() for parameter in model.parameters())
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return f"{trainable:,} of {total:,} parameters", f"{100 * trainable / total:.1f} %"


def _new_tensors(config: FinetuneConfig, checkpoint: Checkpoint) -> tuple[str, str]:
    count = len(checkpoint.new_tensors)
    if config.strategy == "scratch":
        return f"all {count}", "fresh weights"
    if not count:
        return "none", "the checkpoint's head is kept"
    return ", ".join(checkpoint.new_tensors), "a new head; everything else came from the checkpoint"


def _splits(data: ImageData) -> str:
    made = [name for name in SPLIT_NAMES if data.split_methods[name].startswith("made")]
    return f"{' and '.join(made)} made by content hash" if made else "as given"


def _balance(data: ImageData) -> str:
    counts = data.class_counts("train")
    fewest, most = min(counts), max(counts)
    return f"{fewest} training images each" if fewest == most else f"{fewest} to {most} training images each"


def _budget(args: TrainingArguments) -> str:
    count, unit = (args.max_steps, "step") if args.max_steps > 0 else (args.num_train_epochs, "epoch")
    return f"{count:g} {unit}{'' if count == 1 else 's'}"


def _layer_groups(config: FinetuneConfig, trainer: TransferTrainer) -> tuple[Decision, ...]:
    """Shows the groups where the run tells more apart than backbone and head."""
    groups = trainer.groups
    unfreezing = trainer.unfreezing.unfreezing
    if len(groups) == 2 and not unfreezing.changes():
        return ()
    first = unfreezing.first_open(len(groups))
    counted = f"{len(groups)}, from {groups[0].name} to {groups[-1].name}"
    learning = f"{len(first)}, from {groups[first[0]].name} on"
    if unfreezing.tune_norms is not None:
        learning = f"the head and norms, from {groups[first[0]].name} on"
    return (
        Decision("layer groups", counted, f"hf-transfer inspect --model {config.model} lists them"),
        Decision("learning first", learning, unfreezing.describe()),
    )


def _head_solver(trainer: TransferTrainer) -> tuple[Decision, ...]:
    """Shows how the head comes about where there is a choice."""
    choice = trainer.head_choice
    if choice is None:
        return ()
    words = {"sgd": "trained step by step (sgd)", "lbfgs": "solved before the first step (lbfgs)"}
    return (Decision("head", words[choice.solver], choice.reason),)


def _rates(
    config: FinetuneConfig, checkpoint: Checkpoint, trainer: TransferTrainer, rates: LearningRates
) -> tuple[Decision, ...]:
    head = Decision("learning rate, head", f"{rates.head:g}", rates.head_reason)
    if rates.norms is not None:
        return Decision("learning rate, norms", f"{rates.norms.value:g}", rates.norms.reason), head
    if config.strategy == "feature-extraction":
        return (head,)
    backbone = Decision("learning rate, backbone", f"{rates.backbone:g}", rates.backbone_reason)
    decay = plan_layer_decay(config.layer_decay, config.strategy, checkpoint.model)
    factor = decay.per_group(len(trainer.groups))
    if factor is None:
        return backbone, head
    lowest = rates.backbone * factor ** (len(trainer.groups) - 2)
    shown = f"{factor:.3g}, from {lowest:.2g} in the first group"
    return backbone, Decision("layer decay", shown, decay.reason), head


def _memory(config: FinetuneConfig, trainer: TransferTrainer) -> tuple[Decision, ...]:
    """Shows the estimate of memory, with a way out where it is more than there is."""
    # Their pictures have the same size, and are never left for the device to finish.
    validation: Any = trainer.eval_dataset
    copies = sum((config.ema is not None, config.l2_sp is not None, config.wise_ft))
    estimate = estimate_memory(trainer, tuple(validation[0]["pixel_values"].shape), copies)
    if estimate is None:
        return ()
    free = free_memory(trainer.args.device)
    value = f"about {shown(estimate.total)} of {shown(free)} free"
    if estimate.total <= free:
        return (Decision("memory", value, estimate.describe()),)
    return (
        Decision(
            "memory",
            f"{value}: too much",
            f"{estimate.describe()}; half of --per_device_train_batch_size and twice --gradient_accumulation_steps do "
            "the same with less, --auto_find_batch_size finds how far",
        ),
    )


def _schedule(args: TrainingArguments) -> str:
    warmup: Any = args.warmup_steps
    text = f"{warmup:.0%} of the steps" if warmup < 1 else f"{warmup:g} steps"
    return f"{SchedulerType(args.lr_scheduler_type).value}, warm-up over {text}"


def _selection(config: FinetuneConfig, args: TrainingArguments) -> tuple[str, str]:
    if not args.load_best_model_at_end:
        return "the last", YOURS
    if keeps_last_good(config, args):
        return f"the last within chance of the best validation {args.metric_for_best_model}", LAST_GOOD
    return f"by validation {args.metric_for_best_model}", _reason("load_best_model_at_end", config)


def _precision(trainer: TransferTrainer, channels_last: bool) -> str:
    args = trainer.args
    words = {"no": "float32", "bf16": "bfloat16 autocast", "fp16": "float16 autocast"}
    text = words.get(args.mixed_precision, args.mixed_precision)
    text += "" if trainer.half_learning is None else ", bfloat16 where it learns"
    text += ", TF32" if args.tf32 else ""
    text += ", channels-last" if channels_last else ""
    text += ", compiled" if compiled_by_accelerate(trainer) else _IF_IT_PAYS if trainer.compiling else ""
    return text


def _decay_reason(config: FinetuneConfig, args: TrainingArguments) -> str:
    return REASON if follows_memory(config, args) else _reason("weight_decay", config)


def _reason(name: str, config: FinetuneConfig) -> str:
    """Returns the reason of a default, or says that the user set it."""
    if name in config.training:
        return YOURS
    default = STRATEGY_DEFAULTS[config.strategy].get(name) or OUR_DEFAULTS.get(name)
    return default.reason if default else "Trainer's default"
