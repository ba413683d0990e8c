"""Passes through a network that only try something out, and how their answers are held against each other.

Knows modules and logits. Does not know what is tried.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

REFUSALS = (RuntimeError, TypeError, ValueError, IndexError, AttributeError, KeyError, StopIteration, AssertionError)
"""What networks raise where they are handed tensors of a shape that they were not made for."""
_TOLERANCE = 1e-4
"""Of logits, as a share of the largest; what is computed at the wrong place misses by orders of magnitude more."""


@contextmanager
def left_as_found(model: nn.Module) -> Iterator[dict[nn.Module, bool]]:
    """Puts back what passes change: which modules train, and buffers such as the statistics of BatchNorm.

    Yields:
        `dict[nn.Module, bool]`: which modules train.
    """
    modes = {module: module.training for module in model.modules()}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        yield modes
    finally:
        for module, mode in modes.items():
            module.training = mode
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])


def trial_logits(model: nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
    """Returns logits in float32, with the same dropout each time."""
    devices = [pixel_values.device] if pixel_values.device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        return model(pixel_values=pixel_values).logits.float()


def agree(part: torch.Tensor, whole: torch.Tensor) -> bool:
    """Tells whether logits are the same but for rounding."""
    if part.shape != whole.shape or not bool(torch.isfinite(part).all()):
        return False
    return float((part - whole).abs().max()) <= _TOLERANCE * max(float(whole.abs().max()), 1e-3)
