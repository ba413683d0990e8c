"""Whether a run keeps what its frozen layers compute, and what the kept values depend on.

Knows options, data and arguments. Does not know how anything is kept (`hf_transfer.training.prefix_cache`).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import PIL
import torchvision

from hf_transfer import __version__
from hf_transfer.cache_folder import cache_folder, parse_size
from hf_transfer.config import FinetuneConfig
from hf_transfer.data.fingerprint import sequence_digest
from hf_transfer.data.image_data import ImageData
from hf_transfer.data.kept_pictures import FORMAT
from hf_transfer.data.transforms import AugmentationSettings, build_eval_transform
from hf_transfer.data.visits import VisitedImages, collate_visits
from hf_transfer.errors import UserError
from hf_transfer.models.checkpoint import Checkpoint
from hf_transfer.training.head_choice import choose_head_solver, reason_against_cutting, reason_against_mixing
from hf_transfer.training.kept_views import VIEWS, choose_views
from hf_transfer.training.prefix_build import CacheSettings
from hf_transfer.training.prefix_cache import PrefixCache
from hf_transfer.training.solved_start import SolvedHeadCallback
from hf_transfer.training.trainer import TransferTrainer


def attach_cache(
    trainer: TransferTrainer,
    config: FinetuneConfig,
    data: ImageData,
    checkpoint: Checkpoint,
    augmentation: AugmentationSettings,
) -> None:
    """Lets a trainer keep what its frozen layers compute, where that can be; says in a line why it cannot.

    Plans the run for a solved head, where there is to be one, since that begins with what the frozen layers compute.

    Raises:
        UserError: for options that cannot be, and where `--cache on` cannot be had.
    """
    views = choose_views(config, trainer.args, checkpoint.model, augmentation, len(data.train))
    choice = choose_head_solver(config, data, checkpoint, augmentation, trainer, views)
    trainer.head_choice = choice
    # What was chosen, not what was asked for: `auto` and defaults may come to mean another.
    chosen = {"--head_solver": "sgd" if choice is None else choice.solver, VIEWS: views}
    trainer.run_identity = {**trainer.run_identity, **chosen}
    limit = parse_size(config.cache_limit)
    if config.cache == "off" or config.strategy in ("full", "scratch"):
        if config.cache == "on":
            raise UserError(f"--cache on: --strategy {config.strategy} has no frozen layers.", hint="--cache auto")
        return
    against = reason_against_cutting(trainer) or reason_against_mixing(augmentation)
    if against is not None and config.cache == "on":
        raise UserError(f"--cache on: {against}.", hint="--cache auto does without")
    splits = _visited(trainer, checkpoint, still_first=views > 1 and config.strategy == "feature-extraction")
    settings = CacheSettings(
        mode=config.cache,
        views=views,
        folder=cache_folder(config.cache_dir) / "features",
        limit=limit,
        keep=config.keep_cache,
        pixels=_pixel_facts(data, checkpoint, augmentation, trainer, splits["train"]),
    )
    cache = PrefixCache(trainer, settings, splits)
    if choice is not None and choice.solver == "lbfgs":
        start_solved(trainer, cache, choice.asked)
    if against is None:
        trainer.train_dataset, trainer.eval_dataset = splits["train"], splits["validation"]
        trainer.data_collator = collate_visits
        trainer.prefix = cache
        trainer.add_callback(cache)
    elif trainer.args.should_save:
        print(f"no cache: {against}", flush=True)


def start_solved(trainer: TransferTrainer, cache: PrefixCache, insist: bool) -> None:
    """Lets a training begin with a solved head; everything else learns from the first step on.

    Args:
        trainer ([`TransferTrainer`]):
            A trainer for `feature-extraction` or `lp-ft`.
        cache ([`PrefixCache`]):
            Makes the features; to be added to the trainer's callbacks afterwards, where the steps are to use it too.
        insist (`bool`):
            Whether it is a mistake of the user where the head cannot be solved.
    """
    wish = trainer.unfreezing.unfreezing
    if wish.strategy == "lp-ft":
        trainer.unfreezing.change(dataclasses.replace(wish, head_solved=True))
    trainer.solved_head = SolvedHeadCallback(trainer, cache, insist)
    trainer.add_callback(trainer.solved_head)


def _visited(trainer: TransferTrainer, checkpoint: Checkpoint, still_first: bool) -> dict[str, VisitedImages]:
    """Returns the pictures of both splits by visits; `still_first` where the first of a picture's views is not varied.

    A head alone on a frozen network is better for it by 0.42 and 0.30 points in six and twenty epochs, means of six
    pairs (`benchmarks/results/first_view.md`, torch 2.14.1, 2026-11-27); where more learns it was not measured.
    """
    train: Any = trainer.train_dataset
    validation: Any = trainer.eval_dataset
    still = train.with_transform(build_eval_transform(checkpoint.image_processor), seed=None) if still_first else None
    return {"train": VisitedImages(train, "train", still), "validation": VisitedImages(validation, "validation")}


def _pixel_facts(
    data: ImageData,
    checkpoint: Checkpoint,
    augmentation: AugmentationSettings,
    trainer: TransferTrainer,
    train: VisitedImages,
) -> Mapping[str, Any]:
    """Returns, by split, everything that pixels follow from."""
    common = {
        "processor": checkpoint.image_processor.to_json_string(),
        "format": FORMAT,
        "versions": [__version__, torchvision.__version__, PIL.__version__],
    }
    drawn = {
        "augmentation": dataclasses.asdict(augmentation),
        "seed": trainer.args.seed,
        "varied on": "cpu" if trainer.vary is None else "device",
        "first varied": train.first_view is None,
    }
    return {
        "train": common | drawn | {"pictures": _digest(data, "train")},
        "validation": common | {"pictures": _digest(data, "validation")},
    }


def _digest(data: ImageData, split: str) -> str:
    """Returns a hash of the pictures of a split, in their order."""
    return sequence_digest(data.content_hashes[split])
