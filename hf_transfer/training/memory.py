"""How much memory a training will take, estimated before it starts.

Knows what stays in memory between two optimizer steps (weights, gradients, optimizer state, copies of the weights) and
how often a batch of pictures is held, and adds what a pass takes at its height (`hf_transfer.training.memory_probe`):
of a step, or of an evaluation, whose batches are larger and which may be the height of a run that trains little. What
kernels take for themselves and what the allocator holds back are not in it, nor is what an interpreter with torch
takes (`benchmarks/results/memory.md` holds estimates against measured runs). Does not know what to do when it is too
much (`hf_transfer.training.batch_size`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

import psutil
import torch

from hf_transfer.quicker_calls import quicker_calls
from hf_transfer.training.memory_probe import height_of_evaluation, height_of_step

_FLOAT = 4
_STATES_PER_WEIGHT = {"adam": 2, "nadam": 2, "radam": 2, "lion": 1, "rmsprop": 1, "adagrad": 1, "sgd": 0}
"""Tensors of a weight's size that an optimizer keeps, by how its name begins; two where unknown."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one device while everything learns that ever will."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    """At the height of a micro-batch, with its pictures."""
    copies: int
    """Of the weights, for `--ema`, `--l2_sp` and `--wise_ft`."""
    images: int
    """In a micro-batch."""
    evaluation: int
    """At the height of an evaluation, with its pictures; gradients are gone by then."""
    evaluated: int
    """Images in a batch of an evaluation."""

    @property
    def total(self) -> int:
        """All of it at the height of the run."""
        return sum(self._parts().values())

    def describe(self) -> str:
        """Says what takes how much at the height of the run."""
        parts = self._parts()
        return ", ".join(f"{name} {shown(size)}" for name, size in parts.items() if size)

    def _parts(self) -> dict[str, int]:
        parts = {"weights": self.weights, "gradients": self.gradients, "optimizer": self.optimizer}
        parts |= {"copies": self.copies, f"activations of {self.images} images": self.activations}
        if self.evaluation <= self.gradients + self.activations:
            return parts
        parts = {"weights": self.weights, "optimizer": self.optimizer, "copies": self.copies}
        return parts | {f"evaluation of {self.evaluated} images": self.evaluation}


def shown(size: int) -> str:
    """Returns a number of bytes as people read it, in powers of ten."""
    if size < 1e9:
        return f"{size / 1e6:.0f} MB"
    return f"{size / 1e9:.2f} GB" if size < 1e10 else f"{size / 1e9:.1f} GB"


def free_memory(device: torch.device) -> int:
    """Returns the bytes that are free on a device now; the machine's memory where the device has none of its own."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def optimizer_states(optim: str) -> int:
    """Returns how many tensors of a weight's size an optimizer of this name keeps."""
    fitting = [count for start, count in _STATES_PER_WEIGHT.items() if optim.startswith(start)]
    return fitting[0] if fitting else 2


def estimate_memory(trainer: Any, shape: tuple[int, int, int], copies: int = 0) -> MemoryEstimate | None:
    """Estimates what a training takes at its height.

    Args:
        trainer (`TransferTrainer`):
            The trainer, before its training.
        shape (`tuple[int, int, int]`):
            Channels, height and width of a training image.
        copies (`int`, *optional*, defaults to 0):
            How many copies of the weights are kept beside them.

    Returns:
        [`MemoryEstimate`], or `None` for a network that cannot run on tensors without contents.
    """
    model = trainer.model
    learning = _learning(trainer)
    sizes = {name: parameter.numel() * parameter.element_size() for name, parameter in model.named_parameters()}
    learned = sum(sizes[name] for name in learning)
    images, evaluated = trainer.args.per_device_train_batch_size, trainer.args.per_device_eval_batch_size
    half = torch.bfloat16 if trainer.half_learning or trainer.args.mixed_precision in ("bf16", "fp16") else None
    try:
        with trainer.computing():
            step = height_of_step(model, learning, shape, images, half, trainer.memory_format)
        # In float32, as the saved model is evaluated at the end.
        with quicker_calls(trainer.args.device):
            evaluation = height_of_evaluation(model, shape, evaluated, trainer.memory_format)
    except (NotImplementedError, RuntimeError, TypeError, ValueError):
        return None  # A network that looks at values.
    pixels = _FLOAT * prod(shape) * _batches_held(trainer)
    return MemoryEstimate(
        weights=sum(sizes.values()),
        gradients=learned,
        optimizer=optimizer_states(str(getattr(trainer.args.optim, "value", trainer.args.optim))) * learned,
        activations=step + images * pixels,
        copies=copies * sum(sizes.values()),
        images=images,
        evaluation=evaluation + evaluated * pixels,
        evaluated=evaluated,
    )


def _batches_held(trainer: Any) -> int:
    """Returns how often the pixels of a batch lie on the device at the same time."""
    # accelerate fetches the next batch before it hands one out, in the memory of the machine.
    ahead = trainer.args.device.type == "cpu"
    laid_out_anew = trainer.memory_format == torch.channels_last
    return 1 + ahead + laid_out_anew


def _learning(trainer: Any) -> set[str]:
    """Returns the names of the parameters that may learn at any time of the run."""
    unfreezing, groups = trainer.unfreezing.unfreezing, trainer.groups
    numbers: Iterable[int] = unfreezing.first_open(len(groups))
    if unfreezing.changes():
        numbers = range(len(groups) - 1 - unfreezing.thawing_groups(len(groups) - 1), len(groups))
    named = {name for number in numbers for name in groups[number].parameter_names}
    return named - set(trainer.unfreezing.never_learns)
