"""Heads that are a single linear layer on the features of the network.

Knows how such a head is told from others. Does not know how it is trained or solved.
"""

from collections.abc import Collection

import torch
from torch import nn


def linear_head(model: nn.Module, head_parameter_names: Collection[str]) -> str | None:
    """Returns the name of the linear layer that is the whole head; `None` where the head is something else.

    Args:
        model (`nn.Module`):
            A classifier.
        head_parameter_names (`Collection[str]`):
            What `hf_transfer.models.head.find_head` returned.
    """
    owners = {name.rpartition(".")[0] for name in head_parameter_names}
    name = owners.pop() if len(owners) == 1 else ""
    return name if isinstance(model.get_submodule(name), nn.Linear) else None


def answers_for_the_network(model: nn.Module, layer: nn.Linear, pixel_values: torch.Tensor) -> bool:
    """Tells whether a layer sees a row of features for each picture, and its answers are the network's logits.

    Args:
        model (`nn.Module`):
            A classifier; it is left as it was.
        layer (`nn.Linear`):
            A layer of it.
        pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
            Some pictures, on the model's device.
    """
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    hook = layer.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            logits = model(pixel_values=pixel_values).logits
    finally:
        hook.remove()
        for module, mode in modes.items():
            module.training = mode
    if len(seen) != 1:
        return False
    features, answers = seen[0]
    return features.shape == (len(pixel_values), layer.in_features) and torch.equal(answers, logits)
