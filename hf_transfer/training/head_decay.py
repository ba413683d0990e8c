"""Weight decay for a fresh head on frozen features, by how long its weights remember.

AdamW's weights are a moving average of its recent updates, over `1 / (rate * decay)` steps; what suits, counted in
epochs, hardly depends on the network or on the number of pictures (Wang and Aitchison 2025, arXiv:2405.13698). The
rate that suits a head differs tenfold between networks (`hf_transfer.training.head_rate`), and the steps of an epoch
by more between data sets, so that one decay for all would be next to none for some and a wall for others.

Knows rates, steps and the length of that memory. Does not know which parameters decay
(`hf_transfer.training.parameter_groups`).
"""

import math

from transformers import TrainingArguments
from transformers.training_args import OptimizerNames

from hf_transfer.config import FinetuneConfig
from hf_transfer.training.arguments import images_per_step

MEMORY = 20.0
"""Epochs, at the peak of the schedule. Cross-validated on frozen features (`benchmarks/results/head_decay.md`): a ViT
gains half a point of accuracy in twenty epochs and a quarter in six, MobileNets neither gain nor lose beyond noise.
With shorter memories they lose a little in six epochs."""
REASON = f"the head remembers {MEMORY:g} epochs, whatever its rate and the number of pictures"


def follows_memory(config: FinetuneConfig, args: TrainingArguments) -> bool:
    """Tells whether the decay of a run follows from `MEMORY`: a new head alone, AdamW, and no wish of the user."""
    return (
        config.strategy == "feature-extraction"
        and not config.keep_head
        and "weight_decay" not in config.training
        and OptimizerNames(args.optim).value.startswith("adamw")
        and args.learning_rate > 0
    )


def head_decay(args: TrainingArguments, num_images: int) -> float:
    """Returns the decay with which a head remembers `MEMORY` epochs.

    Args:
        args (`TrainingArguments`):
            Its peak learning rate, and how many pictures make a step.
        num_images (`int`):
            Number of training pictures.

    Returns:
        `float`: with two digits, as the rate has.
    """
    steps = math.ceil(num_images / images_per_step(args))
    return float(f"{decay_of(MEMORY, args.learning_rate, steps):.1e}")


def decay_of(memory: float, rate: float, steps_per_epoch: int) -> float:
    """Returns the decay with which weights at a rate remember that many epochs."""
    return 1 / (memory * rate * steps_per_epoch)
