"""Where a network can be cut: below the layers that learn, or as near below as the answers stay the same.

Every cut is held against the whole network on real pictures before it is used: in evaluation and in training, with
another number of pictures than it was made with, and with two different fillings of its stubs.

Knows layer groups and how a cut is judged. Does not know how one works (`hf_transfer.training.prefix_cut`).
"""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import nn

from hf_transfer.models.layer_groups import LayerGroup
from hf_transfer.training.prefix_cut import PrefixCut
from hf_transfer.training.trial_pass import REFUSALS, agree, left_as_found, trial_logits

_PROBE = 3
"""Pictures of the pass that looks for inputs; the check has another number, so that shapes must follow the batch."""


def find_cut(
    model: nn.Module, groups: Sequence[LayerGroup], boundary: int, pixel_values: torch.Tensor
) -> PrefixCut | None:
    """Cuts a model below a layer group, or below one further down where only that is exact.

    Args:
        model (`nn.Module`):
            The model, on its device, with gradients switched off below that group; it is left as it was.
        groups (`Sequence[LayerGroup]`):
            Layer groups from stem to head.
        boundary (`int`):
            The number of the group; the lowest that learns, or one below it.
        pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
            Four real pictures or more.

    Returns:
        [`PrefixCut`] or `None`: the nearest cut whose answers are those of the whole model.
    """
    for number in range(boundary, 0, -1):
        cut = cut_at(model, groups, number)
        if _is_exact(cut, pixel_values):
            return cut
    return None


def cut_at(model: nn.Module, groups: Sequence[LayerGroup], boundary: int) -> PrefixCut:
    """Returns the cut below group number `boundary`, not looked into yet."""
    below = [name for group in groups[:boundary] for name in group.module_names if _is_called(model, name)]
    above = [name for group in groups[boundary:] for name in group.module_names if _is_called(model, name)]
    # Layers without weights, such as a flattening before the head, may be counted to the other side; what lies in a
    # module goes with the module.
    whole = set(_outermost([*below, *above]))
    return PrefixCut(
        model,
        tuple(name for name in _outermost(below) if name in whole),
        tuple(name for name in _outermost(above) if name in whole),
    )


def _is_exact(cut: PrefixCut, pixel_values: torch.Tensor) -> bool:
    """Tells whether a cut changes nothing: logits in evaluation and in training, whatever the stubs return."""
    model = cut.model
    with left_as_found(model) as modes:
        # A network may refuse what a stub hands it: then this is no place to cut it.
        try:
            model.eval()
            cut.probe(pixel_values[:_PROBE])
            if not cut.inlets:
                return False
            kept = cut.collect(pixel_values)
            for training in (False, True):
                for module, mode in modes.items():
                    module.training = mode and training
                whole = trial_logits(model, pixel_values)
                for cut.filling in (1.0, 0.0):
                    with cut.fed_with([values.clone() for values in kept]) as pictures:
                        part = trial_logits(model, pictures)
                    if not agree(part, whole):
                        return False
            return True
        except REFUSALS:
            return False


def _is_called(model: nn.Module, name: str) -> bool:
    """Tells whether a module computes anything itself; lists of modules only hold those that do."""
    return type(model.get_submodule(name)).forward is not nn.Module.forward


def _outermost(names: Any) -> tuple[str, ...]:
    """Returns the names that lie in none of the others."""
    known = dict.fromkeys(names)
    return tuple(name for name in known if name and not any(around in known for around in _around(name)))


def _around(name: str) -> Collection[str]:
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]
