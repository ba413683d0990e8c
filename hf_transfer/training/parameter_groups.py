"""Optimizer parameter groups: who learns at which rate, with or without weight decay.

Knows names, shapes and rates. Does not know how rates move over time (`Trainer.create_scheduler`) or why a parameter
is frozen (`hf_transfer.training.frozen`).
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from hf_transfer.models.layer_groups import LayerGroup

NO_DECAY_SUFFIX = "no_decay"


def decays(parameter: nn.Parameter) -> bool:
    """Tells whether weight decay applies: to matrices and kernels, not to norms, biases, scales and single tokens.

    Shape decides rather than name, since every family names its norms differently: whatever has one axis longer than
    one, such as a BatchNorm weight or ConvNeXtV2's GRN scale of shape `(1, 1, 1, channels)`, is no matrix.
    """
    return sum(size > 1 for size in parameter.shape) > 1


def build_parameter_groups(
    model: nn.Module,
    groups: Sequence[LayerGroup],
    rates: Mapping[str, float],
    weight_decay: float,
    learning: Collection[int],
) -> list[dict[str, Any]]:
    """Sorts parameters into optimizer groups by layer group, rate and weight decay.

    Whatever learns at any time of the run is in from the start: while frozen it has no gradient, so that no optimizer
    moves it or keeps a state for it, and the layout is the same in every phase of a run.

    Args:
        model (`nn.Module`):
            The model.
        groups (`Sequence[LayerGroup]`):
            Its layer groups, from stem to head.
        rates (`Mapping[str, float]`):
            The peak learning rate of each parameter by name.
        weight_decay (`float`):
            Weight decay of the matrices and kernels.
        learning (`Collection[int]`):
            The numbers of the layer groups that learn at any time of the run.

    Returns:
        `list[dict]`: non-empty groups with `name`, `layer_group` (the number), `params`, `lr` and `weight_decay`, in
        the order of the layer groups. Every parameter of a group that learns is in exactly one of them.
    """
    built: dict[tuple[int, float, bool], dict[str, Any]] = {}
    parameters = dict(model.named_parameters())
    expected = 0
    for number in sorted(learning):
        group = groups[number]
        expected += len(group.parameter_names)
        usual = _most_common(rates[name] for name in group.parameter_names)
        for name in group.parameter_names:
            key = (number, rates[name], decays(parameters[name]))
            if key not in built:
                label = group.name if rates[name] == usual else f"{group.name} at {rates[name]:g}"
                built[key] = {
                    "name": label if key[2] else f"{label}_{NO_DECAY_SUFFIX}",
                    "layer_group": number,
                    "params": [],
                    "lr": rates[name],
                    "weight_decay": weight_decay if key[2] else 0.0,
                }
            built[key]["params"].append(parameters[name])
    placed = sum(len(group["params"]) for group in built.values())
    assert placed == expected, f"{placed} of {expected} parameters are in a group"
    return list(built.values())


def _most_common(rates: Iterable[float]) -> float | None:
    counts = Counter(rates).most_common(1)
    return counts[0][0] if counts else None
