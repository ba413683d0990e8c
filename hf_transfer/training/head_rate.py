"""A learning rate for a fresh head, measured on the features that it will see.

One step of Adam moves every weight of a linear head by about its learning rate, so that a logit moves by up to the
rate times the L1 norm of the features. Features of different networks differ in that norm by a factor of ten, and so
does the rate that suits their head; rate times norm hardly differs (`benchmarks/results/head_rate.md`).

Knows the norm and the rate that follows. Does not know whether the user wants another (`hf_transfer.training.rates`).
"""

from collections.abc import Collection, Iterable

import torch
from torch import nn

from hf_transfer.cpu_products import quicker_products

LOGIT_STEP = 1.5
"""How far a logit may move in one step of Adam at the peak of the schedule; measured on frozen features."""


def measured_head_rate(
    model: nn.Module, head_parameter_names: Collection[str], batches: Iterable[torch.Tensor]
) -> float | None:
    """Returns a learning rate at which one Adam step moves a logit by about `LOGIT_STEP`.

    Args:
        model (`nn.Module`):
            A classifier in evaluation mode; it is not changed.
        head_parameter_names (`Collection[str]`):
            Names of the head's parameters.
        batches (`Iterable[torch.Tensor]`):
            Pixel values of shape `(batch_size, num_channels, height, width)`.

    Returns:
        `float` or `None`: with two digits; `None` where the head is no linear or convolution layer, or sees nothing
        but zeros.
    """
    layers = [model.get_submodule(owner) for owner in sorted({n.rpartition(".")[0] for n in head_parameter_names})]
    layers = [layer for layer in layers if isinstance(layer, nn.Linear | nn.Conv2d)]
    norms: list[torch.Tensor] = []
    hooks = [layer.register_forward_pre_hook(_collect_norms(norms)) for layer in layers]
    try:
        with torch.no_grad():
            for pixel_values in batches:
                with quicker_products(pixel_values.device):
                    model(pixel_values=pixel_values)
    finally:
        for hook in hooks:
            hook.remove()
    norm = float(torch.cat(norms).mean()) if norms else 0.0
    # Two digits: the same rate on machines whose last bits differ.
    return float(f"{LOGIT_STEP / norm:.1e}") if 0.0 < norm < float("inf") else None


def _collect_norms(norms: list[torch.Tensor]):
    def hook(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        features = 1 if isinstance(layer, nn.Conv2d) else -1
        norms.append(inputs[0].float().abs().sum(features).flatten())

    return hook
