"""A tiny training on kept inputs of its open layers, in this process or in one of its own.

`python -m tests.training.cached_run OUT.safetensors CACHE STRATEGY PER_DEVICE_BATCH` trains a ViT, where the strategy
`solved` is lp-ft from a solved head; under `accelerate launch` all processes build the cache together, and the main
one writes the weights.
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from hf_transfer.data.visits import VisitedImages, collate_visits
from hf_transfer.training.caching import start_solved
from hf_transfer.training.prefix_build import CacheSettings
from hf_transfer.training.prefix_cache import PrefixCache
from hf_transfer.training.process_group import end_processes
from hf_transfer.training.strategies import Unfreezing
from hf_transfer.training.trainer import TransferTrainer
from tests.training.tiny_run import tiny_model, tiny_trainer


def cached_trainer(
    model: Any,
    output_dir: Path,
    model_type: str,
    cache: Path,
    views: int = 2,
    mode: str = "auto",
    limit: int = 10**9,
    keep: bool = True,
    solved: bool = False,
    still_first: bool = False,
    **settings: Any,
) -> TransferTrainer:
    """Returns a trainer with a cache; `mode` `off` shows the same views without one, `solved` solves first.

    `still_first` does not vary the first view.
    """
    trainer = tiny_trainer(model, output_dir, model_type, **settings)
    train: Any = trainer.train_dataset
    validation: Any = trainer.eval_dataset
    still = train.with_transform(validation.transform, seed=None) if still_first else None
    splits = {"train": VisitedImages(train, "train", still), "validation": VisitedImages(validation, "validation")}
    trainer.train_dataset, trainer.eval_dataset = splits["train"], splits["validation"]
    trainer.data_collator = collate_visits
    # Whatever the cache cannot do, the trajectory is that of its views.
    bytes_allowed = 0 if mode == "off" else limit
    pixels = {"train": ["train", len(train), still_first], "validation": ["validation", len(validation)]}
    wish = CacheSettings("auto" if mode == "off" else mode, views, cache, bytes_allowed, keep, pixels)
    trainer.prefix = PrefixCache(trainer, wish, splits)
    if solved:
        start_solved(trainer, trainer.prefix, insist=False)
    trainer.add_callback(trainer.prefix)
    return trainer


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}


def main(out: str, cache: str, strategy: str, batch: str) -> None:
    model = tiny_model("vit")
    solved = strategy == "solved"
    trainer = cached_trainer(
        model,
        Path(out).parent / "run",
        "vit",
        Path(cache),
        views=1,
        strategy=Unfreezing(strategy="lp-ft" if solved else strategy),  # type: ignore[arg-type]
        solved=solved,
        num_train_epochs=3,
        per_device_train_batch_size=int(batch),
        # Small enough that a solved head gets no worse: steps that overshoot make much of the last bit.
        learning_rate=0.002 if solved else 0.05,
    )
    trainer.train()
    assert trainer.prefix is not None
    assert trainer.prefix.facts[0]["cached"], trainer.prefix.facts
    if os.environ.get("RANK", "0") == "0":
        save_file(weights_of(model), out)


if __name__ == "__main__":
    main(*sys.argv[1:])
    end_processes()
