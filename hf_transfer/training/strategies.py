"""Which parameters a strategy trains, and how what is frozen stays exactly as it was.

Knows `feature-extraction`, `full` and `scratch`. Does not know learning rates
(`hf_transfer.training.parameter_groups`) or where fresh weights come from (`hf_transfer.models.checkpoint`). Schedules
that open groups one after the other belong here too, once layer groups exist.
"""

from collections.abc import Collection

from torch import nn


def freeze_for_strategy(model: nn.Module, strategy: str, head_parameter_names: Collection[str]) -> None:
    """Sets `requires_grad` of every parameter as the strategy asks.

    Args:
        model (`nn.Module`):
            The model, changed in place.
        strategy (`str`):
            `feature-extraction` opens the head alone; `full` and `scratch` open everything.
        head_parameter_names (`Collection[str]`):
            Names of the parameters of the head.
    """
    head_only = strategy == "feature-extraction"
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not head_only or name in head_parameter_names)


def frozen_modules(model: nn.Module, open_modules: Collection[nn.Module] = ()) -> tuple[nn.Module, ...]:
    """Returns the modules that a train step must leave in evaluation mode.

    Frozen means more than no gradient: BatchNorm must not gather statistics of the new images, and dropout and
    stochastic depth must not blur features that cannot adapt. A module is frozen when none of the parameters in it
    trains and it is neither in `open_modules` nor around one of them.

    Args:
        model (`nn.Module`):
            The model after `freeze_for_strategy`.
        open_modules (`Collection[nn.Module]`, *optional*):
            Modules without parameters that belong to the open part, such as the dropout before the head.

    Returns:
        `tuple[nn.Module, ...]`: empty when every parameter trains.
    """
    if all(parameter.requires_grad for parameter in model.parameters()):
        return ()
    return tuple(module for module in model.modules() if not _is_open(module, open_modules))


def _is_open(module: nn.Module, open_modules: Collection[nn.Module]) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters()) or any(
        inner is kept for kept in open_modules for inner in module.modules()
    )
