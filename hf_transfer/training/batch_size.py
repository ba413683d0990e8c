"""Training within the memory there is: a smaller micro-batch, and as many images per step as before.

Trainer's own `auto_find_batch_size` lets the images of an optimizer step shrink with the micro-batch, and the run
becomes another one. Here accumulation makes up for it: the loss is divided by the images of the whole step, so that
the weights stay the same.

Knows when memory ran out and what has to be taken back before the next try. Does not know how training is done.
"""

import gc
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils.memory import should_reduce_batch_size

from hf_transfer.errors import UserError
from hf_transfer.training.checkpoints import find_checkpoint


def train_within_memory(trainer: Any, resume: Path | None, train: Callable[[Path | None], None]) -> None:
    """Trains, and again with smaller micro-batches while memory runs out.

    Each new try goes on from the last whole checkpoint, or from the beginning where there is none.

    Args:
        trainer (`TransferTrainer`):
            Its `args` get a smaller `per_device_train_batch_size` and larger `gradient_accumulation_steps`.
        resume (`Path`, *optional*):
            The checkpoint that the first try continues from.
        train (`Callable[[Path | None], None]`):
            Trains from a checkpoint, or from the beginning.

    Raises:
        UserError: if memory runs out with a single image.
    """
    weights = {name: tensor.detach().cpu().clone() for name, tensor in trainer.model.state_dict().items()}
    randomness = _random_states()
    while True:
        try:
            train(resume)
        except RuntimeError as error:
            # An out-of-memory error of CUDA has its message alone as well.
            if not should_reduce_batch_size(error):
                raise
            smaller_micro_batch(trainer.args)
        else:
            return
        print(
            f"Out of memory: going on with {trainer.args.per_device_train_batch_size} images at a time, accumulated "
            f"over {trainer.args.gradient_accumulation_steps}; a step has as many as before.",
            flush=True,
        )
        _start_afresh(trainer, weights, randomness)
        resume = find_checkpoint(Path(trainer.args.output_dir)).folder


def smaller_micro_batch(args: Any) -> None:
    """Halves the micro-batch, or a little more, so that whole micro-batches make up the same number of images.

    Args:
        args (`TrainingArguments`):
            Changed in place.

    Raises:
        UserError: if there is nothing smaller.
    """
    batch = args.per_device_train_batch_size
    if batch == 1:
        raise UserError(
            "Memory runs out with a single image at a time.",
            hint="a smaller checkpoint, --activation_checkpointing, or --strategy feature-extraction",
        )
    images = batch * args.gradient_accumulation_steps
    smaller = max(size for size in range(1, batch // 2 + 1) if images % size == 0)
    args.per_device_train_batch_size = smaller
    args.gradient_accumulation_steps = images // smaller


def _start_afresh(trainer: Any, weights: dict[str, torch.Tensor], randomness: dict[str, Any]) -> None:
    """Takes back what the failed try has left: weights, optimizer, schedule, wrapped model, random numbers."""
    trainer.optimizer = None
    trainer.lr_scheduler = None
    trainer.model_wrapped = trainer.model
    trainer.model.zero_grad(set_to_none=True)
    trainer._train_batch_size = trainer.args.train_batch_size
    trainer.accelerator.free_memory()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.set_rng_state_all(randomness["cuda"])
    trainer.model.load_state_dict(weights)
    torch.set_rng_state(randomness["torch"])
    random.setstate(randomness["python"])
    np.random.set_state(randomness["numpy"])


def _random_states() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "torch": torch.get_rng_state(),
        "cuda": cuda,
        "python": random.getstate(),
        "numpy": np.random.get_state(),
    }
