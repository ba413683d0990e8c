"""The order in which a network's pixels and kernels lie in memory.

Knows which order suits a network. Does not know what the user wants (`hf_transfer.training.session`).
"""

from torch import nn


def suits_channels_last(model: nn.Module) -> bool:
    """Tells classic convolutional networks, such as ResNet and MobileNet, by their BatchNorm.

    They are faster channels-last, transformers are not (`benchmarks/results/channels_last.md`).
    """
    return any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
