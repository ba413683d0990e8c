"""Whether a run keeps what its frozen layers compute, and what the kept values depend on.

Knows options, data and arguments. Does not know how anything is kept (`hf_transfer.training.prefix_cache`).
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import PIL
import torchvision
from transformers import TrainingArguments

from hf_transfer import __version__
from hf_transfer.cache_folder import cache_folder, parse_size
from hf_transfer.config import FinetuneConfig
from hf_transfer.data.fingerprint import sequence_digest
from hf_transfer.data.image_data import ImageData
from hf_transfer.data.kept_pictures import FORMAT
from hf_transfer.data.transforms import AugmentationSettings, varies
from hf_transfer.data.visits import VisitedImages, collate_visits
from hf_transfer.errors import UserError
from hf_transfer.models.checkpoint import Checkpoint
from hf_transfer.training.prefix_build import CacheSettings
from hf_transfer.training.prefix_cache import PrefixCache
from hf_transfer.training.solved_start import SolvedHeadCallback
from hf_transfer.training.trainer import TransferTrainer

DEFAULT_VIEWS = 2
"""More hardly help a frozen head, fewer do less well with some networks (`benchmarks/views.py`)."""


def attach_cache(
    trainer: TransferTrainer,
    config: FinetuneConfig,
    data: ImageData,
    checkpoint: Checkpoint,
    augmentation: AugmentationSettings,
) -> None:
    """Lets a trainer keep what its frozen layers compute, where that can be; says in a line why it cannot.

    Raises:
        UserError: for options that cannot be, and where `--cache on` cannot be had.
    """
    _check_solver(config, trainer)
    views = _views(config, augmentation)
    limit = parse_size(config.cache_limit)
    if config.cache == "off" or config.strategy in ("full", "scratch"):
        if config.cache == "on":
            raise UserError(f"--cache on: --strategy {config.strategy} has no frozen layers.", hint="--cache auto")
        return
    against = reason_against(trainer, augmentation)
    solved = config.head_solver == "lbfgs"
    if against is not None:
        if config.cache == "on" or solved:
            asked = "--head_solver lbfgs" if solved else "--cache on"
            raise UserError(f"{asked}: {against}.", hint="--head_solver sgd and --cache auto do without")
        if trainer.args.should_save:
            print(f"no cache: {against}", flush=True)
        return
    train: Any = trainer.train_dataset
    validation: Any = trainer.eval_dataset
    splits = {
        "train": VisitedImages(train, "train"),
        "validation": VisitedImages(validation, "validation"),
    }
    settings = CacheSettings(
        mode="on" if solved else config.cache,
        views=views,
        folder=cache_folder(config.cache_dir) / "features",
        limit=limit,
        keep=config.keep_cache,
        pixels=_pixel_facts(data, checkpoint, augmentation, trainer.args),
    )
    trainer.train_dataset, trainer.eval_dataset = splits["train"], splits["validation"]
    trainer.data_collator = collate_visits
    trainer.prefix = PrefixCache(trainer, settings, splits)
    trainer.add_callback(trainer.prefix)
    if solved:
        trainer.solved_head = SolvedHeadCallback(trainer)
        trainer.add_callback(trainer.solved_head)


def reason_against(trainer: TransferTrainer, augmentation: AugmentationSettings) -> str | None:
    """Says why nothing of a run can be kept, whatever is frozen when; `None` where it can."""
    args = trainer.args
    if augmentation.mixup or augmentation.cutmix:
        return "mixup and CutMix mix the pixels of different pictures"
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return "FSDP and DeepSpeed cut the network into pieces of their own"
    if args.torch_compile:
        return "a compiled network cannot be cut"
    if int(os.environ.get("LOCAL_WORLD_SIZE", "1")) < args.world_size:
        return "several machines do not share a disk"
    return None


def _check_solver(config: FinetuneConfig, trainer: TransferTrainer) -> None:
    """Refuses what a head that is solved in one go cannot have."""
    if config.head_solver == "sgd":
        return
    if config.strategy != "feature-extraction":
        raise UserError(
            f"--head_solver lbfgs: --strategy {config.strategy} trains more than the head.",
            hint="--strategy feature-extraction, or --head_solver sgd",
        )
    steps = {
        "--cache off": config.cache == "off",
        "--ema": config.ema is not None,
        "--label_smoothing_factor": bool(trainer.args.label_smoothing_factor),
    }
    for option in (name for name, given in steps.items() if given):
        raise UserError(f"--head_solver lbfgs and {option} exclude each other.", hint=f"leave {option} out")


def _views(config: FinetuneConfig, augmentation: AugmentationSettings) -> int:
    if config.cache_views is not None and config.cache_views < 1:
        raise UserError(f"--cache_views {config.cache_views}", "1 or more", "--cache_views 2")
    if not varies(augmentation):
        return 1  # All views are the same.
    return DEFAULT_VIEWS if config.cache_views is None else config.cache_views


def _pixel_facts(
    data: ImageData, checkpoint: Checkpoint, augmentation: AugmentationSettings, args: TrainingArguments
) -> Mapping[str, Any]:
    """Returns, by split, everything that pixels follow from."""
    common = {
        "processor": checkpoint.image_processor.to_json_string(),
        "format": FORMAT,
        "versions": [__version__, torchvision.__version__, PIL.__version__],
    }
    drawn = {"augmentation": dataclasses.asdict(augmentation), "seed": args.seed}
    return {
        "train": common | drawn | {"pictures": _digest(data, "train")},
        "validation": common | {"pictures": _digest(data, "validation")},
    }


def _digest(data: ImageData, split: str) -> str:
    """Returns a hash of the pictures of a split, in their order."""
    return sequence_digest(data.content_hashes[split])
