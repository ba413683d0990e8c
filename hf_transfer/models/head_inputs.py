"""What the head of a classifier sees of pictures.

Knows which layers make up a head, and how to look at their inputs. Does not know what these are good for.
"""

from collections.abc import Collection, Iterable

import torch
from torch import nn

from hf_transfer.quicker_calls import quicker_calls


def head_inputs(
    model: nn.Module, head_parameter_names: Collection[str], batches: Iterable[torch.Tensor]
) -> list[torch.Tensor]:
    """Returns the features that each layer of the head is given.

    Args:
        model (`nn.Module`):
            A classifier in evaluation mode; it is not changed.
        head_parameter_names (`Collection[str]`):
            Names of the head's parameters.
        batches (`Iterable[torch.Tensor]`):
            Pixel values of shape `(batch_size, num_channels, height, width)`, on the model's device.

    Returns:
        `list[torch.Tensor]`: in float32, of shape `(num_images, ..., num_features)`, for each linear and convolution
        layer of the head; other layers are left out.
    """
    layers = [model.get_submodule(owner) for owner in sorted({n.rpartition(".")[0] for n in head_parameter_names})]
    layers = [layer for layer in layers if isinstance(layer, nn.Linear | nn.Conv2d)]
    seen: list[list[torch.Tensor]] = [[] for _ in layers]
    hooks = [layer.register_forward_pre_hook(_noting(inputs)) for layer, inputs in zip(layers, seen, strict=True)]
    try:
        with torch.no_grad():
            for pixel_values in batches:
                with quicker_calls(pixel_values.device):
                    model(pixel_values=pixel_values)
    finally:
        for hook in hooks:
            hook.remove()
    return [torch.cat(inputs) for inputs in seen if inputs]


def _noting(seen: list[torch.Tensor]):
    def hook(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        features = inputs[0].detach().float()
        seen.append(features.movedim(1, -1) if isinstance(layer, nn.Conv2d) else features)

    return hook
