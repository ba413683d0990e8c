"""How long the layers below each layer group take, measured on pictures of the run.

One forward pass tells all: the clock is read whenever a layer of a group is entered for the first time. Knows models
and clocks. Does not know what the seconds are for (`hf_transfer.training.prefix_plan`).
"""

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from hf_transfer.models.layer_groups import LayerGroup
from hf_transfer.training.prefix_plan import Costs

ROUNDS = 3
"""Timed passes, after one that is not: the first pass of a shape chooses kernels."""


def measure_costs(
    model: nn.Module,
    groups: Sequence[LayerGroup],
    pictures: Callable[[], torch.Tensor],
    hands: int,
    clock: Callable[[], float] = time.perf_counter,
    computing: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Costs:
    """Measures what a look at a picture costs.

    Args:
        model (`nn.Module`):
            The model, on its device; it is left as it was.
        groups (`Sequence[LayerGroup]`):
            Layer groups from stem to head.
        pictures (`Callable[[], torch.Tensor]`):
            Makes a batch of pixels of shape `(batch_size, num_channels, height, width)` on that device.
        hands (`int`):
            How many processes make pixels.
        clock (`Callable[[], float]`, *optional*):
            Returns seconds.
        computing (`Callable[[], AbstractContextManager]`, *optional*):
            Makes the context in which the network computes.

    Returns:
        [`Costs`]
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        pixels_seconds, passes = [], []
        for number in range(ROUNDS + 1):
            start = clock()
            pixel_values = pictures()
            made = clock()
            with computing():
                passes.append(_seconds_below(model, groups, pixel_values, clock))
            pixels_seconds.append((made - start) / len(pixel_values) / max(1, hands))
            if number == 0:
                pixels_seconds.clear()
                passes.clear()
    finally:
        for module, mode in modes.items():
            module.training = mode
    below = [statistics.median(found[group] for found in passes) for group in range(len(groups))]
    # Noise must not make more layers cheaper than fewer.
    rising = [max(below[: group + 1]) for group in range(len(groups))]
    return Costs(statistics.median(pixels_seconds), tuple(rising))


def _seconds_below(
    model: nn.Module, groups: Sequence[LayerGroup], pixel_values: torch.Tensor, clock: Callable[[], float]
) -> list[float]:
    """Returns for each group the seconds of one picture from the start of a pass to its first layer."""
    entered: dict[int, float] = {}

    def note(group: int) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any) -> None:
            if group not in entered:
                _wait_for(pixel_values.device)
                entered[group] = clock()

        return hook

    hooks = [
        model.get_submodule(name).register_forward_pre_hook(note(number))
        for number, group in enumerate(groups)
        for name in group.module_names
    ]
    try:
        _wait_for(pixel_values.device)
        start = clock()
        with torch.no_grad():
            model(pixel_values=pixel_values)
        _wait_for(pixel_values.device)
        end = clock()
    finally:
        for hook in hooks:
            hook.remove()
    # A group whose layers are never called by themselves is taken to begin where the next one does.
    seconds: list[float] = []
    for number in reversed(range(len(groups))):
        end = entered.get(number, end)
        seconds.insert(0, (end - start) / len(pixel_values))
    return [0.0, *seconds[1:]]


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
