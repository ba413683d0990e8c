"""Whether the head of a run is solved in one go or trained step by step, and why.

Knows what a solved head needs and what it excludes. Does not solve anything (`hf_transfer.training.solved_start`).
"""

import os
from dataclasses import dataclass
from typing import Any, Literal

import torch

from hf_transfer.cache_folder import shown_size
from hf_transfer.config import FinetuneConfig
from hf_transfer.data.image_data import ImageData
from hf_transfer.data.transforms import AugmentationSettings
from hf_transfer.errors import UserError
from hf_transfer.models.checkpoint import Checkpoint
from hf_transfer.models.linear_head import answers_for_the_network, linear_head
from hf_transfer.training.compiling import compiled_by_accelerate
from hf_transfer.training.rates import YOURS

SOLVER_OF_FEATURE_EXTRACTION: Literal["sgd", "lbfgs"] = "sgd"
"""What `--head_solver auto` means where the head is all that learns: on two views of each picture, solved heads were
below or within noise of stepped ones in all four pairs measured (`benchmarks/results/views.md`)."""
NO_LINEAR_HEAD = "the head of this network is not a single linear layer on its features"
_LARGEST = 10**9
"""Bytes of features, in float32, up to which nobody has to ask for the solution: it goes through all of them hundreds
of times, in memory and in one process."""
_CHECKED_PICTURES = 4
_STEPS_OF_THE_HEAD = ("learning_rate", "num_train_epochs", "max_steps")


@dataclass(frozen=True)
class HeadChoice:
    """How the head comes about."""

    solver: Literal["sgd", "lbfgs"]
    reason: str
    asked: bool = False
    """Whether the user named the solver, so that it is a mistake where it cannot be had."""


def choose_head_solver(
    config: FinetuneConfig,
    data: ImageData,
    checkpoint: Checkpoint,
    augmentation: AugmentationSettings,
    trainer: Any,
    views: int,
) -> HeadChoice | None:
    """Chooses between steps and a solution.

    Args:
        config, data, checkpoint, augmentation:
            The run.
        trainer (`TransferTrainer`):
            Its trainer, before the training.
        views (`int`):
            How many views of each training picture are kept.

    Returns:
        [`HeadChoice`], or `None` for strategies that neither probe first nor train the head alone.

    Raises:
        UserError: if the user named `lbfgs` and it cannot be had.
    """
    asked = config.head_solver == "lbfgs"
    if config.strategy not in ("feature-extraction", "lp-ft"):
        if asked:
            raise UserError(
                f"--head_solver lbfgs: --strategy {config.strategy} trains more than the head.",
                hint="--strategy feature-extraction or lp-ft, or --head_solver sgd",
            )
        return None
    if config.head_solver == "sgd":
        return HeadChoice("sgd", YOURS)
    if not asked and config.strategy == "feature-extraction" and SOLVER_OF_FEATURE_EXTRACTION == "sgd":
        return HeadChoice("sgd", "step by step, where the head is all that learns")
    for option in _excluded(config, trainer, asked):
        if asked:
            raise UserError(f"--head_solver lbfgs and {option} exclude each other.", hint=f"leave {option} out")
        return HeadChoice("sgd", f"{option} asks for steps of the head")
    mixed = reason_against_mixing(augmentation) if config.strategy == "feature-extraction" else None
    against = reason_against_cutting(trainer) or mixed or _reason_against(data, checkpoint, trainer, views, asked)
    if against is None:
        reason = "the best linear head on the frozen features, by validation"
        return HeadChoice("lbfgs", YOURS if asked else reason, asked)
    if asked:
        raise UserError(f"--head_solver lbfgs: {against}.", hint="--head_solver sgd does without")
    return HeadChoice("sgd", against)


def reason_against_cutting(trainer: Any) -> str | None:
    """Says why frozen layers cannot be computed apart from the others; `None` where they can."""
    args = trainer.args
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return "FSDP and DeepSpeed cut the network into pieces of their own"
    if compiled_by_accelerate(trainer):
        return "a compiled network cannot be cut"
    if int(os.environ.get("LOCAL_WORLD_SIZE", "1")) < args.world_size:
        return "several machines do not share a disk"
    return None


def reason_against_mixing(augmentation: AugmentationSettings) -> str | None:
    """Says why what was kept of single pictures is of no use to the steps of a run; `None` where it is."""
    if augmentation.mixup or augmentation.cutmix:
        return "mixup and CutMix mix the pixels of different pictures"
    return None


def _excluded(config: FinetuneConfig, trainer: Any, asked: bool) -> list[str]:
    """Returns the options given that a solved head leaves no room for."""
    given = {"--cache off": config.cache == "off"}
    if config.strategy == "lp-ft":
        given["--probe"] = config.probe is not None
    else:
        given["--ema"] = config.ema is not None
        given["--tune_norms"] = config.tune_norms is not None
        given["--label_smoothing_factor"] = bool(trainer.args.label_smoothing_factor)
        if not asked:
            given["--lr_head"] = config.lr_head is not None
            given |= {f"--{name}": name in config.training for name in _STEPS_OF_THE_HEAD}
    if not asked:
        given["--keep_head"] = config.keep_head
    return [option for option, is_given in given.items() if is_given]


def _reason_against(data: ImageData, checkpoint: Checkpoint, trainer: Any, views: int, asked: bool) -> str | None:
    """Says why the head of a network cannot be solved on the features of these pictures; `None` where it can."""
    if min(data.class_counts("train")) == 0:
        return "there is a class without a training picture"
    name = linear_head(trainer.model, checkpoint.head_parameter_names)
    layer: Any = None if name is None else trainer.model.get_submodule(name)
    if layer is None or layer.bias is None or not _answers(trainer, layer):
        return NO_LINEAR_HEAD
    size = 4 * layer.in_features * len(data.train) * views
    return (
        f"{shown_size(size)} of features are many for a solution in one go" if size > _LARGEST and not asked else None
    )


def _answers(trainer: Any, layer: Any) -> bool:
    pictures = trainer.eval_dataset
    rows = range(min(_CHECKED_PICTURES, len(pictures)))
    pixels = torch.stack([pictures[row]["pixel_values"] for row in rows]).to(trainer.args.device)
    return answers_for_the_network(trainer.model, layer, pixels.contiguous(memory_format=trainer.memory_format))
