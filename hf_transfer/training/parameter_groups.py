"""Optimizer parameter groups: who learns at which rate, with or without weight decay.

Knows names, shapes and rates. Does not know how rates move over time (`Trainer.create_scheduler`) or why a parameter
is frozen (`hf_transfer.training.strategies`).
"""

from collections.abc import Collection
from typing import Any

from torch import nn

NO_DECAY_SUFFIX = "no_decay"


def decays(parameter: nn.Parameter) -> bool:
    """Tells whether weight decay applies: to matrices and kernels, not to norms, biases, scales and single tokens.

    Shape decides rather than name, since every family names its norms differently: whatever has one axis longer than
    one, such as a BatchNorm weight or ConvNeXtV2's GRN scale of shape `(1, 1, 1, channels)`, is no matrix.
    """
    return sum(size > 1 for size in parameter.shape) > 1


def build_parameter_groups(
    model: nn.Module,
    head_parameter_names: Collection[str],
    *,
    learning_rate: float,
    lr_head: float,
    weight_decay: float,
) -> list[dict[str, Any]]:
    """Sorts the trainable parameters into backbone and head, each with and without weight decay.

    Args:
        model (`nn.Module`):
            The model; parameters that do not require gradients are left out.
        head_parameter_names (`Collection[str]`):
            Names of the parameters that learn at `lr_head`.
        learning_rate (`float`):
            Rate of the backbone.
        lr_head (`float`):
            Rate of the head.
        weight_decay (`float`):
            Weight decay of the matrices and kernels.

    Returns:
        `list[dict]`: non-empty groups with `name`, `params`, `lr` and `weight_decay`, backbone first. Every trainable
        parameter is in exactly one of them.
    """
    groups: dict[str, dict[str, Any]] = {}
    for part, rate in (("backbone", learning_rate), ("head", lr_head)):
        for suffix, decay in (("", weight_decay), (f"_{NO_DECAY_SUFFIX}", 0.0)):
            name = part + suffix
            groups[name] = {"name": name, "params": [], "lr": rate, "weight_decay": decay}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = "head" if name in head_parameter_names else "backbone"
            groups[part if decays(parameter) else f"{part}_{NO_DECAY_SUFFIX}"]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]
