"""Frozen groups: no gradient, no statistics, no dropout, and thawed again without a trace.

Knows how a set of open groups is put on a model. Does not know which groups are open when
(`hf_transfer.training.schedule`).
"""

from collections.abc import Collection, Sequence

from torch import nn

from hf_transfer.errors import UserError
from hf_transfer.models.layer_groups import LayerGroup
from hf_transfer.models.norms import norm_parameters


def open_groups(
    model: nn.Module, groups: Sequence[LayerGroup], open_numbers: Collection[int], never: Collection[str] = ()
) -> None:
    """Sets `requires_grad` of every parameter: on in the open groups but for those in `never`, off elsewhere.

    Autograd then neither keeps activations nor runs backward below the lowest open group. Gradients that frozen
    parameters still hold are dropped, so that no optimizer touches them.
    """
    parameters = dict(model.named_parameters())
    for number, group in enumerate(groups):
        for name in group.parameter_names:
            learns = number in open_numbers and name not in never
            parameters[name].requires_grad_(learns)
            if not learns:
                parameters[name].grad = None


def frozen_modules(
    model: nn.Module, groups: Sequence[LayerGroup], open_numbers: Collection[int]
) -> tuple[nn.Module, ...]:
    """Returns the modules that a train step must leave in evaluation mode.

    Frozen means more than no gradient: BatchNorm must not gather statistics of the new images, and dropout and
    stochastic depth must not blur features that cannot adapt. A module is open when it belongs to an open group or
    holds a module or a learning parameter of one.

    Args:
        model (`nn.Module`):
            The model after [`open_groups`].
        groups (`Sequence[LayerGroup]`):
            Its layer groups.
        open_numbers (`Collection[int]`):
            The numbers of the open ones.

    Returns:
        `tuple[nn.Module, ...]`: empty when every group is open.
    """
    if len(open_numbers) == len(groups):
        return ()
    opened = {model.get_submodule(name) for number in open_numbers for name in groups[number].module_names}
    of_open = {model.get_parameter(name) for number in open_numbers for name in groups[number].parameter_names}
    learning = {parameter for parameter in of_open if parameter.requires_grad}
    return tuple(module for module in model.modules() if not _is_open(module, opened, learning))


def outside_norms(model: nn.Module, groups: Sequence[LayerGroup]) -> tuple[str, ...]:
    """Returns the names of the parameters of layer groups that are no scale or shift of a normalisation layer.

    Raises:
        UserError: where there is no such scale or shift in these groups.
    """
    norms = set(norm_parameters(model))
    names = [name for group in groups for name in group.parameter_names]
    if norms.isdisjoint(names):
        where = ", ".join(group.name for group in groups)
        raise UserError(
            f"--tune_norms: there are no normalisation layers with weights in {where}.",
            hint="leave it out, or --strategy partial, which lets the last layers learn",
        )
    return tuple(name for name in names if name not in norms)


def _is_open(module: nn.Module, opened: Collection[nn.Module], learning: Collection[nn.Parameter]) -> bool:
    return any(parameter in learning for parameter in module.parameters()) or any(
        inner in opened for inner in module.modules()
    )
