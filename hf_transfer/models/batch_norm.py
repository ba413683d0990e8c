"""Which networks are classic convolutional ones.

Knows BatchNorm. Does not know what follows from it: a memory layout, or a learning rate.
"""

from torch import nn


def has_batch_norm(model: nn.Module) -> bool:
    """Tells classic convolutional networks, such as ResNet and MobileNet, by their BatchNorm."""
    return any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
