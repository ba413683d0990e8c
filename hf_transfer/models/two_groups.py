"""The coarsest layer groups: backbone and head.

Enough for strategies that treat the backbone as one, and to be had for every classifier without looking at the order
in which its layers run, as `hf_transfer.models.layer_groups` does.
"""

from collections.abc import Collection

from torch import nn
from transformers import PreTrainedModel

from hf_transfer.models.head import find_head_dropout
from hf_transfer.models.layer_groups import LayerGroup


def backbone_and_head(model: PreTrainedModel, head_parameter_names: Collection[str]) -> tuple[LayerGroup, LayerGroup]:
    """Splits a classifier in two.

    Args:
        model (`PreTrainedModel`):
            The classifier.
        head_parameter_names (`Collection[str]`):
            What `hf_transfer.models.head.find_head` returned.

    Returns:
        `tuple[LayerGroup, LayerGroup]`: `backbone` and `head`; the dropout before the head belongs to the head.
    """
    names = [name for name, _ in model.named_parameters()]
    head_modules = _modules_of_head(model, head_parameter_names)
    # Modules around the head, the model itself first of all, belong to neither.
    around = {
        name for name, module in model.named_modules() if any(inner in head_modules for inner in module.modules())
    }
    return (
        LayerGroup(
            "backbone",
            tuple(name for name in names if name not in head_parameter_names),
            tuple(name for name, _ in model.named_modules() if name not in around),
        ),
        LayerGroup(
            "head",
            tuple(name for name in names if name in head_parameter_names),
            tuple(name for name, module in model.named_modules() if module in head_modules),
        ),
    )


def _modules_of_head(model: PreTrainedModel, head_parameter_names: Collection[str]) -> set[nn.Module]:
    owners = [model.get_submodule(name.rpartition(".")[0]) for name in head_parameter_names]
    whole = [owner for owner in owners if not _holds_other_parameters(model, owner, head_parameter_names)]
    whole += find_head_dropout(model, head_parameter_names)
    return {inner for module in whole for inner in module.modules()}


def _holds_other_parameters(model: nn.Module, module: nn.Module, head_parameter_names: Collection[str]) -> bool:
    head = {id(parameter) for name, parameter in model.named_parameters() if name in head_parameter_names}
    return any(id(parameter) not in head for parameter in module.parameters())
